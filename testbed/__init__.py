"""The lab: topology files, emulated hosts, pods through CNI, scenarios, reports, the command line."""
