# The block design around the accelerator, and its bitstream.
#
#   vivado -mode batch -source zcu104.tcl -tclargs KEY VALUE ...
#
#   ip FOLDER      where the exported IP lies           kernel VLNV    the IP's name
#   work FOLDER    Vivado's project, made anew          clock MHZ      of the programmable logic
#   part NAME      the FPGA                             board NAME     the board, in Vivado's board store
#   base ADDRESS   of the kernel's registers            span BYTES     their range
#   jobs N         processors for synthesis
#
# The processing system (PS) with the board's preset; its ports HP0 .. HP3, 128 bit each, serve the kernel's four AXI
# masters through a SmartConnect of their own; HPM0 reaches the kernel's registers; a counter that runs free tells the
# kernel the cycle. Everything runs on pl_clk0. Written by hand and free of versions: cells take the newest IP of their
# name that this Vivado has.

set required {ip kernel work clock part board base span jobs}
array set given $argv
foreach key $required {
  if {![info exists given($key)]} { error "zcu104.tcl needs the argument $key" }
}

proc newest {name} {
  set found [lsort -dictionary [get_ipdefs -all -filter "NAME == $name"]]
  if {[llength $found] == 0} { error "this Vivado has no IP $name" }
  return [lindex $found end]
}

create_project -force -part $given(part) edgemtl $given(work)
set_property board_part $given(board) [current_project]
set_property ip_repo_paths $given(ip) [current_project]
update_ip_catalog
if {[llength [get_ipdefs -all $given(kernel)]] != 1} { error "no IP $given(kernel) in $given(ip)" }
create_bd_design edgemtl

# Cells.
set ps [create_bd_cell -type ip -vlnv [newest zynq_ultra_ps_e] ps]
apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset 1} $ps
set settings [list CONFIG.PSU__USE__M_AXI_GP0 1 CONFIG.PSU__USE__M_AXI_GP1 0 CONFIG.PSU__USE__M_AXI_GP2 0]
lappend settings CONFIG.PSU__FPGA_PL0_ENABLE 1 CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $given(clock)
foreach port {2 3 4 5} {
  lappend settings CONFIG.PSU__USE__S_AXI_GP$port 1 CONFIG.PSU__SAXIGP${port}__DATA_WIDTH 128
}
set_property -dict $settings $ps
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
path ps/M_AXI_HPM0_FPD to_control kernel/s_axi_control
foreach port {0 1 2 3} { path kernel/m_axi_hp$port to_hp$port ps/S_AXI_HP${port}_FPD }

# One clock, one reset.
set clocked {reset/slowest_sync_clk kernel/ap_clk counter/CLK ps/maxihpm0_fpd_aclk to_control/aclk}
set released {kernel/ap_rst_n to_control/aresetn}
foreach port {0 1 2 3} {
  lappend clocked ps/saxihp${port}_fpd_aclk to_hp$port/aclk
  lappend released to_hp$port/aresetn
}
connect_bd_net [get_bd_pins counter/Q] [get_bd_pins kernel/cycle]
foreach pin $clocked { connect_bd_net [get_bd_pins ps/pl_clk0] [get_bd_pins $pin] }
connect_bd_net [get_bd_pins ps/pl_resetn0] [get_bd_pins reset/ext_reset_in]
foreach pin $released { connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins $pin] }

# Addresses: the registers for the PS; the DDR of the board, all of it in the low 2 GiB, for each master.
assign_bd_address -offset $given(base) -range $given(span) \
  -target_address_space [get_bd_addr_spaces ps/Data] [get_bd_addr_segs kernel/s_axi_control/Reg]
foreach port {0 1 2 3} segment {SAXIGP2/HP0 SAXIGP3/HP1 SAXIGP4/HP2 SAXIGP5/HP3} {
  assign_bd_address -target_address_space [get_bd_addr_spaces kernel/Data_m_axi_hp$port] \
    [get_bd_addr_segs ps/${segment}_DDR_LOW]
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
if {$slack < 0} { error "timing is not met at $given(clock) MHz: worst slack $slack ns; try make zcu104 CLOCK=250" }
file copy -force $given(work)/edgemtl.runs/impl_1/edgemtl_wrapper.bit $given(work)/edgemtl.bit
file copy -force $given(work)/edgemtl.gen/sources_1/bd/edgemtl/hw_handoff/edgemtl.hwh $given(work)/edgemtl.hwh
