# Stand-ins for the commands of Vivado that design.tcl uses. Each checks the name and arguments it is given; the cells
# have the pins of the real IP. Every command is printed; at the end, so is every pin that needs a connection, with how
# many it has.

proc options {command words known} {
  # Splits `words` into options (name -> value; flags get 1) and plain arguments; `known`: {-flag 0 -option 1 ...}.
  array set takes $known
  set plain {}
  set found {}
  for {set i 0} {$i < [llength $words]} {incr i} {
    set word [lindex $words $i]
    if {![string match {-[a-z]*} $word]} { lappend plain $word; continue }
    if {![info exists takes($word)]} { error "$command has no option $word" }
    if {$takes($word)} { incr i; lappend found $word [lindex $words $i] } else { lappend found $word 1 }
  }
  puts "$command|[join $words |]"
  return [list $found $plain]
}
proc only {command plain count} {
  if {[llength $plain] != $count} { error "$command takes $count arguments, given $plain" }
}
proc in_list {what value list} {
  if {[lsearch -exact $list $value] < 0} { error "there is no $what $value" }
  return $value
}

set catalogue {
  xilinx.com:ip:zynq_ultra_ps_e:3.4 xilinx.com:ip:zynq_ultra_ps_e:3.5 xilinx.com:ip:proc_sys_reset:5.0
  xilinx.com:ip:smartconnect:1.0 xilinx.com:ip:c_counter_binary:12.0 edgemtl:hls:edgemtl_top:2.0
}
# Buses, clocks, resets: the pins that must have exactly one driver or partner. "out" pins may drive any number.
array set buses {
  zynq_ultra_ps_e {M_AXI_HPM0_FPD S_AXI_HP0_FPD S_AXI_HP1_FPD S_AXI_HP2_FPD S_AXI_HP3_FPD}
  proc_sys_reset {} smartconnect {S00_AXI M00_AXI} c_counter_binary {}
  edgemtl_top {s_axi_control m_axi_hp0 m_axi_hp1 m_axi_hp2 m_axi_hp3}
}
array set inputs {
  zynq_ultra_ps_e {maxihpm0_fpd_aclk saxihp0_fpd_aclk saxihp1_fpd_aclk saxihp2_fpd_aclk saxihp3_fpd_aclk}
  proc_sys_reset {slowest_sync_clk ext_reset_in} smartconnect {aclk aresetn} c_counter_binary {CLK}
  edgemtl_top {ap_clk ap_rst_n cycle}
}
array set outputs {
  zynq_ultra_ps_e {pl_clk0 pl_resetn0} proc_sys_reset {peripheral_aresetn interconnect_aresetn}
  smartconnect {} c_counter_binary {Q} edgemtl_top {interrupt}
}
array set masters {
  zynq_ultra_ps_e M_AXI_HPM0_FPD proc_sys_reset {} smartconnect M00_AXI c_counter_binary {}
  edgemtl_top {m_axi_hp0 m_axi_hp1 m_axi_hp2 m_axi_hp3}
}
array set kind {}
array set count {}
array set ends {}

proc create_project args { only create_project [lindex [options create_project $args {-force 0 -part 1}] 1] 2 }
proc current_project args { only current_project $args 0; return project }
proc current_fileset args { only current_fileset $args 0; return sources_1 }
proc update_ip_catalog args { options update_ip_catalog $args {-rebuild 0} }
proc create_bd_design name { options create_bd_design $name {} }
proc get_ipdefs args {
  global catalogue
  lassign [options get_ipdefs $args {-all 0 -filter 1}] found plain
  array set given $found
  if {![info exists given(-filter)]} { return [lsearch -all -inline -exact $catalogue [lindex $plain 0]] }
  if {![regexp {^NAME == (\w+)$} $given(-filter) -> name]} { error "get_ipdefs has a strange filter" }
  return [lsearch -all -inline -glob $catalogue *:$name:*]
}
proc create_bd_cell args {
  global catalogue kind count buses inputs
  lassign [options create_bd_cell $args {-type 1 -vlnv 1}] found plain
  array set given $found
  only create_bd_cell $plain 1
  in_list "kind of cell" $given(-type) {ip module hier}
  in_list IP $given(-vlnv) $catalogue
  if {[info exists kind($plain)]} { error "there is a cell $plain already" }
  set kind($plain) [lindex [split $given(-vlnv) :] 2]
  foreach pin [concat $buses($kind($plain)) $inputs($kind($plain))] { set count($plain/$pin) 0 }
  return $plain
}
proc apply_bd_automation args {
  lassign [options apply_bd_automation $args {-rule 1 -config 1}] found plain
  array set given $found
  in_list rule $given(-rule) xilinx.com:bd_rule:zynq_ultra_ps_e
  array set config $given(-config)
  in_list setting [array names config] apply_board_preset
}
proc set_property args {
  global kind set_for
  lassign [options set_property $args {-dict 1}] found plain
  array set given $found
  if {[info exists given(-dict)]} {
    only set_property $plain 1
    if {[llength $given(-dict)] % 2} { error "set_property -dict takes pairs" }
    foreach {name value} $given(-dict) { setting $plain $name $value }
  } else {
    only set_property $plain 3
    in_list property [lindex $plain 0] {board_part ip_repo_paths top}
    in_list object [lindex $plain 2] {project sources_1}
  }
}
proc setting {cell name value} {
  global kind
  set known {
    CONFIG.PSU__USE__M_AXI_GP[012] CONFIG.PSU__USE__S_AXI_GP[0-6] CONFIG.PSU__SAXIGP[0-6]__DATA_WIDTH
    CONFIG.PSU__FPGA_PL0_ENABLE CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ
  }
  if {$kind($cell) eq "smartconnect"} { set known {CONFIG.NUM_SI CONFIG.NUM_MI} }
  if {$kind($cell) eq "c_counter_binary"} { set known CONFIG.Output_Width }
  foreach pattern $known { if {[string match $pattern $name]} { puts "setting|$cell|$name|$value"; return } }
  error "$kind($cell) has no setting $name"
}
proc pin {name lists} {
  global kind
  lassign [split $name /] cell pin
  if {![info exists kind($cell)]} { error "there is no cell $cell" }
  foreach list $lists {
    upvar #0 $list has
    if {[lsearch -exact $has($kind($cell)) $pin] >= 0} { return $name }
  }
  error "$kind($cell) has no pin $pin"
}
proc get_bd_intf_pins name { return [pin $name buses] }
proc get_bd_pins name { return [pin $name {inputs outputs}] }
proc is_master name {
  global kind masters
  lassign [split $name /] cell pin
  return [expr {[lsearch -exact $masters($kind($cell)) $pin] >= 0}]
}
proc connect_bd_intf_net {a b} {
  global count
  options connect_bd_intf_net [list $a $b] {}
  if {[is_master $a] == [is_master $b]} { error "$a and $b are no master and slave" }
  foreach pin [list $a $b] { incr count($pin) }
}
proc connect_bd_net {a b} {
  global count
  options connect_bd_net [list $a $b] {}
  pin $a outputs
  pin $b inputs
  incr count($b)
}
proc get_bd_addr_spaces name {
  in_list "address space" $name {ps/Data kernel/Data_m_axi_hp0 kernel/Data_m_axi_hp1 kernel/Data_m_axi_hp2 \
    kernel/Data_m_axi_hp3}
}
proc get_bd_addr_segs name {
  in_list "address segment" $name {kernel/s_axi_control/Reg ps/SAXIGP2/HP0_DDR_LOW ps/SAXIGP3/HP1_DDR_LOW \
    ps/SAXIGP4/HP2_DDR_LOW ps/SAXIGP5/HP3_DDR_LOW ps/SAXIGP2/HP0_DDR_HIGH ps/SAXIGP3/HP1_DDR_HIGH \
    ps/SAXIGP4/HP2_DDR_HIGH ps/SAXIGP5/HP3_DDR_HIGH}
}
proc assign_bd_address args {
  lassign [options assign_bd_address $args {-offset 1 -range 1 -target_address_space 1}] found plain
  only assign_bd_address $plain 1
  array set given $found
  if {![info exists given(-target_address_space)]} { error "assign_bd_address: no address space" }
}
proc validate_bd_design args { only validate_bd_design $args 0; puts validate_bd_design| }
proc save_bd_design args { only save_bd_design $args 0; puts save_bd_design| }
proc get_files name { in_list file $name edgemtl.bd }
proc make_wrapper args { options make_wrapper $args {-files 1 -top 0}; return edgemtl_wrapper.v }
proc add_files args { options add_files $args {-norecurse 0} }
proc update_compile_order args { options update_compile_order $args {-fileset 1} }
proc launch_runs args { only launch_runs [lindex [options launch_runs $args {-to_step 1 -jobs 1}] 1] 1 }
proc wait_on_run name { in_list run $name impl_1; puts "wait_on_run|$name" }
proc get_runs name { in_list run $name impl_1 }
proc open_run name { in_list run $name impl_1; puts "open_run|$name" }
proc get_property {name object} {
  global env
  array set values {PROGRESS 100% STATUS {write_bitstream Complete!} STATS.WNS 0.012}
  array set values $env(STUB_RUN)
  return $values([in_list property $name [array names values]])
}
foreach report {report_utilization report_timing_summary report_power} {
  proc $report args "options $report \$args {-file 1}"
}
proc finish {} {
  global count
  foreach pin [lsort [array names count]] { puts "count|$pin|$count($pin)" }
}
