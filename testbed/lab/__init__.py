"""What a lab is: its paths, its state on disk, its members as other rooms see them, what its agents say, progress.

`running` is a lab that is up, `state` its intent log, `status` what is found of it, `tables` and `listing` how that is
shown, `logs` what its agents write. It reads and remembers; it never makes, changes or ends anything of a lab but its
own state file.
"""
