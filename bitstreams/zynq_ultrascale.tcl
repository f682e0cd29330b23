# The processing system of a Zynq UltraScale+: what its boards share. A board's board.tcl sources this and says which
# parts of the DDR the kernel may reach.
#
# `processing_system CLOCK` makes the cell `ps` with the board's preset: HPM0 for the registers, HP0 .. HP3 at 128 bit
# for the kernel's four AXI masters, pl_clk0 at CLOCK MHz. The array `system` names its pins for design.tcl.

array set system {
  control ps/M_AXI_HPM0_FPD data ps/Data clock ps/pl_clk0 reset ps/pl_resetn0
  memory {ps/S_AXI_HP0_FPD ps/S_AXI_HP1_FPD ps/S_AXI_HP2_FPD ps/S_AXI_HP3_FPD}
  clocked {ps/maxihpm0_fpd_aclk ps/saxihp0_fpd_aclk ps/saxihp1_fpd_aclk ps/saxihp2_fpd_aclk ps/saxihp3_fpd_aclk}
}

proc processing_system {clock} {
  set ps [create_bd_cell -type ip -vlnv [newest zynq_ultra_ps_e] ps]
  apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset 1} $ps
  set settings [list CONFIG.PSU__USE__M_AXI_GP0 1 CONFIG.PSU__USE__M_AXI_GP1 0 CONFIG.PSU__USE__M_AXI_GP2 0]
  lappend settings CONFIG.PSU__FPGA_PL0_ENABLE 1 CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $clock
  foreach port {2 3 4 5} {
    lappend settings CONFIG.PSU__USE__S_AXI_GP$port 1 CONFIG.PSU__SAXIGP${port}__DATA_WIDTH 128
  }
  set_property -dict $settings $ps
}

# The address segments behind each HP port, for parts of the DDR such as LOW (the first 2 GiB) and HIGH (the rest).
proc ddr_segments {parts} {
  set found {}
  foreach port {SAXIGP2/HP0 SAXIGP3/HP1 SAXIGP4/HP2 SAXIGP5/HP3} {
    set own {}
    foreach part $parts { lappend own ps/${port}_DDR_$part }
    lappend found $own
  }
  return $found
}
