// GELU as ReLU minus a table with linear interpolation (docs/numerics.md), one value per cycle, four cycles.
//
// Entry i and its neighbour are read together: the entries lie in pairs, even pairs in one memory, odd in the other.
module gelu_lane (
    input  wire               clk,
    input  wire               write,
    input  wire        [ 7:0] write_address,  // {half, four entries}
    input  wire        [63:0] entries,
    input  wire               ce,
    input  wire               half,
    input  wire        [ 3:0] step,           // entry i is delta at |p| = i << step
    input  wire signed [15:0] p,
    output logic signed [15:0] gelu           // of the p four cycles ago
);
  (* ram_style = "block" *) logic [31:0] even[0:255];
  (* ram_style = "block" *) logic [31:0] odd [0:255];

  wire [15:0] magnitude = p < 0 ? 16'(-p) : p;  // -32768 becomes 32768
  wire [15:0] index = magnitude >> step;
  wire [6:0] next_even = index[1:0] == 3 ? index[8:2] + 1 : index[8:2];

  logic [31:0] pair0, pair1;
  logic [1:0] place;
  logic here_inside, after_inside;
  logic [15:0] rest1;
  logic [3:0] step1, step2, step3;
  logic signed [15:0] p1, p2, p3;
  logic [15:0] here, after, here2, here3;
  logic signed [16:0] difference;
  logic [15:0] rest2;
  logic signed [32:0] slope;
  wire signed [32:0] rounded = slope + 33'(17'd1 << step3 >> 1);
  wire signed [17:0] delta = 18'($signed({1'b0, here3})) + 18'(rounded >>> step3);
  wire signed [18:0] value = 19'(p3 > 0 ? p3 : 16'sd0) - 19'(delta);

  always_comb begin
    case (place)
      2'd0: {after, here} = pair0;
      2'd1: {after, here} = {pair1[15:0], pair0[31:16]};
      2'd2: {after, here} = pair1;
      default: {after, here} = {pair0[15:0], pair1[31:16]};
    endcase
    if (!here_inside) here = '0;
    if (!after_inside) after = '0;
  end

  always_ff @(posedge clk) begin
    if (write) begin
      even[write_address] <= entries[31:0];
      odd[write_address]  <= entries[63:32];
    end
    if (ce) begin
      pair0 <= even[{half, next_even}];
      pair1 <= odd[{half, index[8:2]}];
      place <= index[1:0];
      here_inside <= index < 512;
      after_inside <= index < 511;
      rest1 <= magnitude & 16'((17'd1 << step) - 1);
      step1 <= step;
      p1 <= p;
      here2 <= here;
      difference <= $signed({1'b0, after}) - $signed({1'b0, here});
      rest2 <= rest1;
      step2 <= step1;
      p2 <= p1;
      slope <= difference * $signed({1'b0, rest2});
      here3 <= here2;
      step3 <= step2;
      p3 <= p2;
      gelu <= value < -32768 ? -16'sd32768 : value[15:0];
    end
  end
endmodule
