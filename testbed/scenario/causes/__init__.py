"""Why a step failed: what agents know, what the kernel holds, and where probe packets end, said with the evidence.

It reads, and sends a few pings; it never changes a lab, never takes longer than its bound, and claims no more than it
has seen: what only fits the failure is called likely (docs/adr/0039-causes-are-evidence.md). `find` is the way in.
"""
