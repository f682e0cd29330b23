# 2 GB of DDR, all of it in the low 2 GiB.
source [file join [file dirname [info script]] .. .. zynq_ultrascale.tcl]
set system(segments) [ddr_segments {LOW}]
