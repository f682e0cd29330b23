# The block design around the accelerator, and its bitstream.
#
#   vivado -mode batch -source design.tcl -tclargs KEY VALUE ...
#
#   ip FOLDER      where the exported IP lies           kernel VLNV    the IP's name
#   work FOLDER    Vivado's project, made anew          clock MHZ      of the programmable logic
#   part NAME      the FPGA                             board NAME     the board, in Vivado's board store
#   script FILE    the board's board.tcl                name NAME      the board's, for make
#   base ADDRESS   of the kernel's registers            span BYTES     their range
#   jobs N         processors for synthesis
#
# The processing system is the board's: its script gives `processing_system` and the names of its pins (`system`). Each
# of the kernel's four AXI masters goes to a port of its own through a SmartConnect; a counter that runs free tells the
# kernel the cycle. Everything runs on one clock. Written by hand and free of versions: cells take the newest IP of
# their name that this Vivado has.

set required {ip kernel work clock part board script name base span jobs}
array set given $argv
foreach key $required {
  if {![info exists given($key)]} { error "design.tcl needs the argument $key" }
}

proc newest {name} {
  set found [lsort -dictionary [get_ipdefs -all -filter "NAME == $name"]]
  if {[llength $found] == 0} { error "this Vivado has no IP $name" }
  return [lindex $found end]
}

source $given(script)

create_project -force -part $given(part) edgemtl $given(work)
set_property board_part $given(board) [current_project]
set_property ip_repo_paths $given(ip) [current_project]
update_ip_catalog
if {[llength [get_ipdefs -all $given(kernel)]] != 1} { error "no IP $given(kernel) in $given(ip)" }
create_bd_design edgemtl

# Cells.
processing_system $given(clock)
create_bd_cell -type ip -vlnv $given(kernel) kernel
create_bd_cell -type ip -vlnv [newest proc_sys_reset] reset
set counter [create_bd_cell -type ip -vlnv [newest c_counter_binary] counter]
set_property -dict {CONFIG.Output_Width 32} $counter
foreach name {control hp0 hp1 hp2 hp3} {
  set cell [create_bd_cell -type ip -vlnv [newest smartconnect] to_$name]
  set_property -dict {CONFIG.NUM_SI 1 CONFIG.NUM_MI 1} $cell
}

# AXI: one path of its own per port.
proc path {from through to} {
  connect_bd_intf_net [get_bd_intf_pins $from] [get_bd_intf_pins $through/S00_AXI]
  connect_bd_intf_net [get_bd_intf_pins $through/M00_AXI] [get_bd_intf_pins $to]
}
path $system(control) to_control kernel/s_axi_control
foreach port {0 1 2 3} pin $system(memory) { path kernel/m_axi_hp$port to_hp$port $pin }

# One clock, one reset.
set clocked [concat $system(clocked) {reset/slowest_sync_clk kernel/ap_clk counter/CLK to_control/aclk}]
set released {kernel/ap_rst_n to_control/aresetn}
foreach port {0 1 2 3} {
  lappend clocked to_hp$port/aclk
  lappend released to_hp$port/aresetn
}
connect_bd_net [get_bd_pins counter/Q] [get_bd_pins kernel/cycle]
foreach pin $clocked { connect_bd_net [get_bd_pins $system(clock)] [get_bd_pins $pin] }
connect_bd_net [get_bd_pins $system(reset)] [get_bd_pins reset/ext_reset_in]
foreach pin $released { connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins $pin] }

# Addresses: the registers for the processor; the board's DDR for each master.
assign_bd_address -offset $given(base) -range $given(span) \
  -target_address_space [get_bd_addr_spaces $system(data)] [get_bd_addr_segs kernel/s_axi_control/Reg]
foreach port {0 1 2 3} segments $system(segments) {
  foreach segment $segments {
    assign_bd_address -target_address_space [get_bd_addr_spaces kernel/Data_m_axi_hp$port] [get_bd_addr_segs $segment]
  }
}
validate_bd_design
save_bd_design

# Synthesis, place and route, bitstream.
set design [get_files edgemtl.bd]
add_files -norecurse [make_wrapper -files $design -top]
set_property top edgemtl_wrapper [current_fileset]
update_compile_order -fileset sources_1
launch_runs impl_1 -to_step write_bitstream -jobs $given(jobs)
wait_on_run impl_1
if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} {
  error "implementation failed: [get_property STATUS [get_runs impl_1]]"
}
open_run impl_1
report_utilization -file $given(work)/utilization.rpt
report_timing_summary -file $given(work)/timing_summary.rpt
report_power -file $given(work)/power.rpt
set slack [get_property STATS.WNS [get_runs impl_1]]
if {$slack < 0} { error "timing is not met at $given(clock) MHz: worst slack $slack ns; try make $given(name) CLOCK=250" }
file copy -force $given(work)/edgemtl.runs/impl_1/edgemtl_wrapper.bit $given(work)/edgemtl.bit
file copy -force $given(work)/edgemtl.gen/sources_1/bd/edgemtl/hw_handoff/edgemtl.hwh $given(work)/edgemtl.hwh
