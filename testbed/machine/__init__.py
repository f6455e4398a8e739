"""What every room asks of the machine it runs on, whatever a lab is: the ground floor beside `topology`.

What we may do here (`privileges`), how to enter a namespace and run a program there (`space`), who a process is and how
it ends (`processes`), signals (`interrupts`), whether a program is installed (`tools`), files written whole (`files`),
where this project lies (`checkout`) and how its command is called (`called`), how text looks on a terminal (`screen`)
and what may reach one (`printable`), what is told of an error that nobody foresaw (`unexpected`). It knows no lab, node
or pod, and keeps nothing between two calls.
"""
