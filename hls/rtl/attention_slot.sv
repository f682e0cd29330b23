// One query's second pass: weights a stream of values and keeps the sums, per head, in two banks. A switch begins a
// new query of the head in the other bank, so that the old one's sums stay for attention_mean.sv.
module attention_slot #(
    parameter int WIDTH = 64
) (
    input  wire                clk,
    input  wire                ce,
    input  wire [        15:0] weight,
    input  wire [ 8*WIDTH-1:0] value,
    // A cycle after the weight.
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
  logic [15:0] weight_late;
  wire [25:0] total_now = begins ? '0 : total[here];
  assign read_total = total[old];
  always_ff @(posedge clk)
    if (ce) begin
      weight_late <= weight;
      if (valid) total[here] <= total_now + 26'(weight_late);
    end

  genvar i;
  generate
    for (i = 0; i < WIDTH; i = i + 1) begin : lane
      (* ram_style = "distributed" *) logic signed [33:0] sum[0:15];
      logic signed [24:0] product;
      wire signed [33:0] sum_now = begins ? 34'sd0 : sum[here];
      assign read_sums[34*i+:34] = sum[old];
      always_ff @(posedge clk)
        if (ce) begin
          product <= $signed({1'b0, weight}) * $signed(value[8*i+:8]);
          if (valid) sum[here] <= sum_now + 34'(product);
        end
    end
  endgenerate
endmodule
