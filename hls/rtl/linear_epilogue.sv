// What happens to the sums of a row group: one row of OUT channels per cycle through the one rounding
// requantisation (ties towards plus infinity, docs/numerics.md) and the job's epilogue.
module linear_epilogue #(
    parameter int OUT = 16
) (
    input  wire                    clk,
    input  wire                    rst,
    // A row group; taken when valid and ready.
    input  wire                    group_valid,
    output wire                    group_ready,
    input  wire [      23*OUT-1:0] group_factor,
    input  wire [             3:0] group_rows,   // that are not padding
    input  wire [             2:0] group_epilogue,
    input  wire                    group_half,
    input  wire                    group_last,   // of the job
    input  wire [      27*OUT-1:0] sums,         // of the first row that has not been taken
    output wire                    next_row,
    // Residual rows and scores, for the epilogues that add: one beat per row.
    input  wire                    stream_valid,
    output wire                    stream_ready,
    input  wire [      16*OUT-1:0] stream_data,
    input  wire [            15:0] stream_score, // UQ1.15
    output logic                   out_valid,
    input  wire                    out_ready,
    output logic [     32*OUT-1:0] out_data,     // sign-extended
    // GELU tables.
    input  wire                    table_write,
    input  wire [             7:0] table_address,
    input  wire [            63:0] table_entries,
    input  wire [             7:0] table_step,
    input  wire [            19:0] table_zero,
    output wire [             1:0] table_done
);
  localparam logic [2:0] INT8 = 0, INT16 = 1, ADD = 2, SCORED = 3, GELU8 = 4, GELU16 = 5, INT32 = 6;
  localparam int STAGES = 9;

  // The group in hand.
  logic [23*OUT-1:0] factor;
  logic [3:0] rows;
  logic [2:0] epilogue;
  logic half, last;
  wire advance = !out_valid || out_ready;
  wire adds = epilogue == ADD || epilogue == SCORED;
  wire go = rows != 0 && advance && (!adds || stream_valid);
  assign stream_ready = rows != 0 && advance && adds;
  assign group_ready  = rows == 0 || (rows == 1 && go);
  assign next_row = go;

  always_ff @(posedge clk)
    if (rst) rows <= 0;
    else if (group_valid && group_ready) begin
      rows <= group_rows;
      factor <= group_factor;
      epilogue <= group_epilogue;
      half <= group_half;
      last <= group_last;
    end else if (go) rows <= rows - 1;

  // Tags of the row in each stage.
  logic [STAGES:1] valid, tag_half, tag_last;
  logic [2:0] kind[1:STAGES];
  integer k;
  always_ff @(posedge clk)
    if (rst) valid <= '0;
    else if (advance) valid <= {valid[STAGES-1:1], go};
  always_ff @(posedge clk)
    if (advance) begin
      tag_half <= {tag_half[STAGES-1:1], half};
      tag_last <= {tag_last[STAGES-1:1], last && rows == 1};
      kind[1]  <= epilogue;
      for (k = 2; k <= STAGES; k = k + 1) kind[k] <= kind[k-1];
    end
  assign out_valid = valid[STAGES];
  wire finished = valid[STAGES] && out_ready && tag_last[STAGES] && kind[STAGES][2:1] == 2'b10;
  assign table_done = {finished && tag_half[STAGES], finished && !tag_half[STAGES]};

  // The residual stream waits for the requantised sum.
  logic [16*OUT-1:0] cell_late[1:7];
  logic [15:0] score_late[1:4];
  always_ff @(posedge clk)
    if (advance) begin
      cell_late[1]  <= stream_data;
      score_late[1] <= stream_score;
      for (k = 2; k <= 7; k = k + 1) cell_late[k] <= cell_late[k-1];
      for (k = 2; k <= 4; k = k + 1) score_late[k] <= score_late[k-1];
    end

  function automatic logic signed [15:0] saturate16(input logic signed [32:0] value);
    saturate16 = value > 32767 ? 16'sd32767 : value < -32768 ? -16'sd32768 : value[15:0];
  endfunction
  function automatic logic signed [7:0] saturate8(input logic signed [31:0] value);
    saturate8 = value > 127 ? 8'sd127 : value < -128 ? -8'sd128 : value[7:0];
  endfunction

  genvar o;
  generate
    for (o = 0; o < OUT; o = o + 1) begin : lane
      logic signed [26:0] sum;
      logic signed [17:0] multiplier;
      logic [5:0] shift1, shift2, shift3;
      logic signed [44:0] product;
      logic signed [47:0] rounded;
      wire signed [47:0] shifted = rounded >>> shift3;
      logic signed [31:0] value[4:8];  // requantised, INT32
      logic signed [15:0] narrow;      // INT16, into GELU
      logic signed [47:0] weighed;
      logic signed [24:0] share6, share7;
      logic signed [31:0] other;
      wire signed [15:0] gelu;
      wire signed [15:0] here = cell_late[7][16*o+:16];
      wire signed [47:0] weighed_half = weighed + 48'sd4194304;
      wire signed [12:0] gelu_rounded = 13'((17'(gelu) + 17'sd8) >>> 4);
      wire signed [9:0] zero = table_zero[10*tag_half[8]+:10];

      gelu_lane gelu_unit (
          .clk, .write(table_write), .write_address(table_address), .entries(table_entries), .ce(advance),
          .half(tag_half[4]), .step(table_step[4*tag_half[4]+:4]), .p(narrow), .gelu
      );
      assign narrow = saturate16(33'(value[4]));

      always_ff @(posedge clk)
        if (advance) begin
          sum <= sums[27*o+:27];
          multiplier <= $signed({1'b0, factor[23*o+:17]});
          shift1 <= factor[23*o+17+:6];
          product <= sum * multiplier;
          shift2 <= shift1;
          rounded <= 48'(product) + $signed(48'd1 << shift2 >> 1);
          shift3 <= shift2;
          value[4] <= shifted > 48'sd2147483647 ? 32'sh7fffffff
              : shifted < -48'sd2147483648 ? 32'sh80000000 : shifted[31:0];
          for (k = 5; k <= 8; k = k + 1) value[k] <= value[k-1];
          weighed <= value[4] * $signed({1'b0, score_late[4]});
          share6 <= 25'(weighed_half >>> 23);
          share7 <= share6;
          // Stage 8: the two epilogues that add; stage 9: all of them.
          other <= 32'(saturate16(33'(here) + (kind[7] == SCORED ? 33'(share7) : 33'(value[7]))));
          case (kind[8])
            INT8: out_data[32*o+:32] <= 32'(saturate8(value[8]));
            INT16: out_data[32*o+:32] <= 32'(saturate16(33'(value[8])));
            GELU8: out_data[32*o+:32] <= 32'(saturate8(32'(gelu_rounded) + 32'(zero)));
            GELU16: out_data[32*o+:32] <= 32'(gelu);
            INT32: out_data[32*o+:32] <= value[8];
            default: out_data[32*o+:32] <= other;
          endcase
        end
    end
  endgenerate
endmodule
