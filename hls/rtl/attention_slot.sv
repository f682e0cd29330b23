// One query's second pass: weights a stream of values and keeps the sums, per head, in two banks. A switch begins a
// new query of the head in the other bank, so that the old one's sums stay for attention_mean.sv.
module attention_slot #(
    parameter int WIDTH = 64
) (
    input  wire                clk,
    input  wire                ce,
    input  wire [        15:0] weight,
    input  wire [ 8*WIDTH-1:0] value,
    // Two cycles after the weight.
    input  wire                valid,
    input  wire                begins,
    input  wire [         2:0] head,
    // The sums that the head's switch left behind.
    input  wire [         2:0] read_head,
    output wire [34*WIDTH-1:0] read_sums,
    output wire [        25:0] read_total
);
  logic [7:0] bank;  // of each head
  wire bank_now = bank[head] ^ begins;
  wire [3:0] here = {bank_now, head}, old = {!bank[read_head], read_head};
  always_ff @(posedge clk) if (ce && valid) bank[head] <= bank_now;

  logic [25:0] total[0:15];
  logic [15:0] weight_late[1:2];
  wire [25:0] total_now = begins ? '0 : total[here];
  assign read_total = total[old];
  always_ff @(posedge clk)
    if (ce) begin
      weight_late[1] <= weight;
      weight_late[2] <= weight_late[1];
      if (valid) total[here] <= total_now + 26'(weight_late[2]);
    end

  // Weight times value in LUTs, as in hls/include/mul2.h (the DSPs are the linear unit's): a row per bit of the value,
  // two rows per sum; the last bit is the sign's.
  function automatic logic signed [18:0] rows(input logic [1:0] bits, input logic sign);
    logic [18:0] low, high;
    low = bits[0] ? 19'(weight) : '0;
    high = bits[1] ? {2'b0, weight, 1'b0} : '0;
    rows = sign ? low - high : low + high;
  endfunction

  genvar i;
  generate
    for (i = 0; i < WIDTH; i = i + 1) begin : lane
      (* ram_style = "distributed" *) logic signed [33:0] sum[0:15];
      logic signed [18:0] row[0:3];
      logic signed [24:0] product;
      integer r;
      wire signed [33:0] sum_now = begins ? 34'sd0 : sum[here];
      assign read_sums[34*i+:34] = sum[old];
      always_ff @(posedge clk)
        if (ce) begin
          for (r = 0; r < 4; r = r + 1) row[r] <= rows(value[8*i+2*r+:2], r == 3);
          product <= (25'(row[0]) + (25'(row[1]) <<< 2)) + ((25'(row[2]) + (25'(row[3]) <<< 2)) <<< 4);
          if (valid) sum[here] <= sum_now + 34'(product);
        end
    end
  endgenerate
endmodule
