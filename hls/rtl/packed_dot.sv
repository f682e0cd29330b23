// Dot products of two rows with one channel's weights, IN products each on IN multipliers: the packing of
// hls/include/mul2.h. Rows a and b share the multiplication by a weight: the 27-bit operand is a * 2^FIELD + b.
//
// Four packed products are added before they are taken apart: 4 * 2^14 fits the low field's 18 bits, so the correction
// is paid once for four, and the additions are a cascade of four DSP48E2 (PCIN). Position j of a cascade gets its
// operand and weight j cycles after position 0: quarter j of the inputs comes j cycles late.
//
// The pipeline's registers are written with blocking assignments, the last stage first: one block, one loop per
// stage. Nothing outside the block reads them.
/* verilator lint_off BLKSEQ */
module packed_dot #(
    parameter int IN    = 16,
    parameter int FIELD = 18   // 16 overflows, but fits a DSP48E1: rtl_cost.py learns so what DSPs absorb
) (
    input  wire                     clk,
    input  wire                     ce,
    input  wire  [(FIELD+9)*IN-1:0] operands,
    input  wire  [        8*IN-1:0] weights,
    output logic signed [21:0]      a,         // 4 cycles after the last quarter
    output logic signed [21:0]      b
);
  localparam int CHAINS = IN / 4;  // chain c has the inputs c, c + CHAINS, ...
  logic signed [FIELD+26:0] product[0:IN-1];
  logic signed [FIELD+26:0] cascade[0:IN-1];
  logic signed [18:0] high[0:CHAINS-1];
  logic signed [FIELD-1:0] low[0:CHAINS-1];
  logic signed [21:0] upper, lower;
  integer c, i;

  always_ff @(posedge clk)
    if (ce) begin
      upper = '0;
      lower = '0;
      for (c = 0; c < CHAINS; c = c + 1) begin
        upper = upper + 22'(high[c]);
        lower = lower + 22'(low[c]);
      end
      a <= upper;
      b <= lower;
      // Take the ends of the cascades apart; a negative low field has borrowed one from the high field.
      for (c = 0; c < CHAINS; c = c + 1) begin
        low[c]  = cascade[3*CHAINS+c][FIELD-1:0];
        high[c] = $signed(cascade[3*CHAINS+c][FIELD+18:FIELD]) + $signed({18'd0, cascade[3*CHAINS+c][FIELD-1]});
      end
      // Cascade: position j adds its product to what position j - 1 had a cycle ago.
      for (i = IN - 1; i >= CHAINS; i = i - 1) cascade[i] = cascade[i-CHAINS] + product[i];
      for (c = 0; c < CHAINS; c = c + 1) cascade[c] = product[c];
      for (i = 0; i < IN; i = i + 1) product[i] = $signed(operands[(FIELD+9)*i+:FIELD+9]) * $signed(weights[8*i+:8]);
    end
endmodule
/* verilator lint_on BLKSEQ */
