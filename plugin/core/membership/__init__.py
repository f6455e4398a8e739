"""Who is a member, and who answers: tables and the detector of failures.

Decides states of members and of the direct ways between them (`members`), and whom to ping when (`swim`). It never
decides what a member may do or own.
"""
