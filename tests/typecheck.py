"""The type checker that tests run remask under: beartype, in which an int is a float as it is for pyright."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
