"""Studies: several trainings asked one question. Sweeps over recipe keys, and ablations.

A study is a folder in the home of runs, `studies/NAME/`: `study.json` says what is asked and how far it has come,
`trials/N/` holds each training's recipe, log and the id of its run. All of it is written so that a study whose
controller was killed goes on where it was, with no training done twice.
"""
