// ROWS x IN x OUT exact INT8 products per cycle, two of them per DSP48E2 (packed_dot.sv), and their sums per row and
// channel: rows and weights of the linear unit, queries and a key of the attention.
module mac_array #(
    parameter int ROWS  = 8,
    parameter int IN    = 16,
    parameter int OUT   = 16,
    parameter int FIELD = 18  // of packed_dot.sv
) (
    input  wire                      clk,
    input  wire                      ce,
    input  wire  [  8*ROWS*IN-1:0]   rows,     // input i of row r at 8 (r IN + i)
    input  wire  [   8*IN*OUT-1:0]   weights,  // of input i, channel o at 8 (i OUT + o); quarter j is 1 + j cycles late
    // Nine cycles after the rows: what to do with the products.
    input  wire                      add,
    input  wire                      first,    // begin with the bias
    input  wire  [     26*OUT-1:0]   bias,
    // A cycle later, when the last products have been added: copy the sums out.
    input  wire                      take,
    input  wire                      next_row, // shifts the copy by a row, also while the array stands still
    output logic [27*ROWS*OUT-1:0]   sums      // of row r, channel o at 27 (r OUT + o)
);
  // Operands and weights at the multipliers' doors; quarter j of both is j cycles late.
  logic [8*ROWS*IN-1:0] late[0:3];  // rows, 1 .. 4 cycles after they came
  localparam int WIDE = FIELD + 9;
  logic [WIDE*ROWS/2*IN-1:0] operands;
  logic [8*IN*OUT-1:0] channels;  // weights, channel by channel
  integer i, k, o, p;
  always_ff @(posedge clk)
    if (ce) begin
      late[0] <= rows;
      for (k = 1; k < 4; k = k + 1) late[k] <= late[k-1];
      for (p = 0; p < ROWS / 2; p = p + 1)
        for (i = 0; i < IN; i = i + 1)
          operands[WIDE*(p*IN+i)+:WIDE] <= WIDE'($signed({late[4*i/IN][8*(2*p*IN+i)+:8], {FIELD{1'b0}}}))
              + WIDE'($signed(late[4*i/IN][8*((2*p+1)*IN+i)+:8]));
      for (o = 0; o < OUT; o = o + 1)
        for (i = 0; i < IN; i = i + 1) channels[8*(o*IN+i)+:8] <= weights[8*(i*OUT+o)+:8];
    end

  wire [27*ROWS*OUT-1:0] current;
  always_ff @(posedge clk)
    if (ce && take) sums <= current;
    else if (next_row) sums <= sums >> 27 * OUT;

  genvar r, c;
  generate
    for (r = 0; r < ROWS; r = r + 2) begin : pair
      for (c = 0; c < OUT; c = c + 1) begin : channel
        wire signed [21:0] a, b;
        logic signed [26:0] sum_a, sum_b;
        packed_dot #(.IN(IN), .FIELD(FIELD)) dot (
            .clk, .ce, .operands(operands[WIDE*IN*r/2+:WIDE*IN]), .weights(channels[8*IN*c+:8*IN]), .a, .b
        );
        assign current[27*(r*OUT+c)+:27] = sum_a;
        assign current[27*((r+1)*OUT+c)+:27] = sum_b;
        always_ff @(posedge clk)
          if (ce && add) begin
            sum_a <= (first ? 27'($signed(bias[26*c+:26])) : sum_a) + 27'(a);
            sum_b <= (first ? 27'($signed(bias[26*c+:26])) : sum_b) + 27'(b);
          end
      end
    end
  endgenerate
endmodule
