// The end of a query's head: reciprocal of the sum of weights, mean of the values, requantisation to INT8; LANES
// channels per cycle. Works in the shadow of the key stream: `done` tells that a slot's old sums have been read.
//
// reciprocal = floor(2^42 / total), two bits per cycle: total is at least 2^15, so 28 bits hold it and the division
// may begin with a remainder of 2^14.
module attention_mean #(
    parameter int WIDTH = 64,
    parameter int LANES = 4
) (
    input  wire                 clk,
    input  wire                 rst,
    input  wire                 available,  // sums of a head
    input  wire                 drop,       // they belong to no query
    input  wire [         25:0] total,
    input  wire [ 34*WIDTH-1:0] sums,
    output wire                 done,
    input  wire [          4:0] steps,      // width of a head / LANES
    input  wire                 row_ends,   // this is the row's last head
    output wire [          8:0] channel,    // whose factors are wanted
    input  wire [ 23*LANES-1:0] factor,     // shift above multiplier
    output logic                out_valid,
    input  wire                 out_ready,
    output logic [ 8*WIDTH-1:0] out_data
);
  wire advance = !out_valid || out_ready;

  // Division.
  logic busy;
  logic [3:0] turns;
  logic [26:0] remainder, once, twice;
  logic [25:0] divisor;
  logic [27:0] quotient;
  logic [1:0] bits;
  wire divided = busy && turns == 0;
  always_comb begin
    once = {remainder[25:0], 1'b0};
    bits[1] = once >= {1'b0, divisor};
    if (bits[1]) once = once - {1'b0, divisor};
    twice = {once[25:0], 1'b0};
    bits[0] = twice >= {1'b0, divisor};
    if (bits[0]) twice = twice - {1'b0, divisor};
  end

  // Multiplication: one head's values leave, LANES per cycle.
  logic [4:0] left;
  wire last_step = left == 1;
  wire load = divided && advance && (left == 0 || last_step);
  assign done = load || (available && !busy && drop);
  logic [27:0] reciprocal;
  logic [34*WIDTH-1:0] values;
  logic [3:0] step;
  logic [8:0] next_channel;
  logic last_head;
  assign channel = next_channel;

  always_ff @(posedge clk)
    if (rst) begin
      busy <= 0;
      left <= 0;
      next_channel <= 0;
    end else begin
      if (!busy) begin
        if (available && !drop) busy <= 1;
        remainder <= 27'd16384;
        divisor <= total;
        turns <= 14;
      end else if (load) busy <= 0;
      else if (turns != 0) begin
        turns <= turns - 1;
        remainder <= twice;
        quotient <= {quotient[25:0], bits};
      end
      if (load) begin
        left <= steps;
        step <= 0;
        values <= sums;
        reciprocal <= quotient;
        last_head <= row_ends;
      end else if (advance && left != 0) begin
        left <= left - 1;
        step <= step + 1;
        values <= values >> 34 * LANES;
      end
      if (advance && left != 0) next_channel <= last_step && last_head ? 0 : next_channel + LANES;
    end

  localparam int STAGES = 5;
  logic [STAGES:1] valid, last;
  logic [3:0] place[1:STAGES];
  integer j;
  always_ff @(posedge clk)
    if (rst) begin
      valid <= '0;
      out_valid <= 0;
    end else if (advance) begin
      valid <= {valid[STAGES-1:1], left != 0};
      last <= {last[STAGES-1:1], last_step};
      place[1] <= step;
      for (j = 2; j <= STAGES; j = j + 1) place[j] <= place[j-1];
      out_valid <= valid[STAGES] && last[STAGES];
    end

  genvar l;
  generate
    for (l = 0; l < LANES; l = l + 1) begin : lane
      logic signed [50:0] weighed;  // below 128 * 2^42
      logic signed [24:0] mean;     // 16 fraction bits
      logic signed [42:0] product;
      logic signed [47:0] rounded;
      logic [22:0] factor1, factor2;
      logic [5:0] shift3, shift4;
      logic signed [7:0] narrow;
      integer k;
      wire signed [50:0] weighed_half = weighed + 51'sd33554432;
      wire signed [47:0] shifted = rounded >>> shift4;
      always_ff @(posedge clk)
        if (advance) begin
          weighed <= 51'($signed(values[34*l+:34])) * $signed({23'd0, reciprocal});
          factor1 <= factor[23*l+:23];
          mean <= 25'(weighed_half >>> 26);
          factor2 <= factor1;
          product <= mean * $signed({1'b0, factor2[16:0]});
          shift3 <= factor2[22:17];
          rounded <= 48'(product) + $signed(48'd1 << shift3 >> 1);
          shift4 <= shift3;
          narrow <= shifted > 127 ? 8'sd127 : shifted < -128 ? -8'sd128 : shifted[7:0];
          for (k = 0; k < WIDTH / LANES; k = k + 1)
            if (valid[STAGES] && place[STAGES] == k) out_data[8*(LANES*k+l)+:8] <= narrow;
        end
    end
  endgenerate
endmodule
