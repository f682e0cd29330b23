// The unified linear unit (hls/src/linear.cpp) as SystemVerilog: jobs of rows [rows][inputs] times weights
// [outputs][inputs], bit for bit the C simulation's values.
//
// Streams, valid/ready: jobs; quads of the weight image; rows, ROWS times IN values per beat, the whole input once
// per tile of OUT channels (the on-chip memory behind it permutes rows and gathers queues); the residual stream's
// values and scores, in the order of the results, for the epilogues that add; results, OUT channels of one row per
// beat, tile by tile, rows in order.
//
// One beat of rows per cycle meets IN x OUT weights. A tile takes ceil(rows / ROWS) * inputs / IN cycles, but at
// least one cycle per row (the epilogue's pace) and at least the load of the next tile, 2 + inputs / 4 quads.
module linear #(
    parameter int LANES_ROW = 8,
    parameter int LANES_IN = 16,
    parameter int LANES_OUT = 16,
    parameter int MAX_INPUTS = 1536,
    parameter int FIELD = 18             // of packed_dot.sv
) (
    input  wire                             clk,
    input  wire                             rst,
    input  wire                             job_valid,
    output wire                             job_ready,
    input  wire [                     15:0] job_rows,
    input  wire [                      7:0] job_words,     // inputs / LANES_IN
    input  wire [                      7:0] job_tiles,     // outputs / LANES_OUT, rounded up
    input  wire [                      2:0] job_epilogue,  // linear_epilogue.sv names them
    input  wire                             weight_valid,
    output wire                             weight_ready,
    input  wire [         32*LANES_OUT-1:0] weight_data,
    input  wire                             row_valid,
    output wire                             row_ready,
    input  wire [8*LANES_ROW*LANES_IN-1:0]  row_data,
    input  wire                             stream_valid,
    output wire                             stream_ready,
    input  wire [         16*LANES_OUT-1:0] stream_data,
    input  wire [                     15:0] stream_score,
    output wire                             out_valid,
    input  wire                             out_ready,
    output wire [         32*LANES_OUT-1:0] out_data,
    output wire                             bad_table
);
  localparam int DEPTH = 10;  // cycles from a beat of rows to its sums' hand-over

  wire [1:0] ready, last_tile, half, table_ready, table_done;
  wire [2*16-1:0] rows;
  wire [2*8-1:0] words;
  wire [2*3-1:0] epilogue;
  wire [2*26*LANES_OUT-1:0] bias;
  wire [2*23*LANES_OUT-1:0] factor;
  wire [8*LANES_IN*LANES_OUT-1:0] weights;
  wire table_write;
  wire [7:0] table_address, table_step;
  wire [63:0] table_entries;
  wire [19:0] table_zero;

  // Issue: words of a row group, groups of a tile, tiles in turn.
  logic turn;
  logic [7:0] word;
  logic [15:0] passed;  // rows of this tile in earlier groups
  wire [15:0] left = rows[16*turn+:16] - passed;
  wire [2:0] kind = epilogue[3*turn+:3];
  wire gelu_missing = kind[2:1] == 2'b10 && !table_ready[half[turn]];
  wire ce;
  assign row_ready = ready[turn] && !gelu_missing && ce;
  wire issue = row_ready && row_valid;
  wire last_word = word == words[8*turn+:8] - 1;
  wire last_group = left <= LANES_ROW;
  wire last_beat = issue && last_word && last_group;
  wire [1:0] begun = {last_beat && turn, last_beat && !turn};

  always_ff @(posedge clk)
    if (rst) begin
      turn <= 0;
      word <= 0;
      passed <= 0;
    end else if (issue) begin
      word <= last_word ? 0 : word + 1;
      if (last_word) passed <= last_group ? 0 : passed + LANES_ROW;
      if (last_beat) turn <= !turn;
    end

  // Tags beside the array's pipeline: {last of job, half, rows of the group, epilogue, tile ends, tile, last, first}
  localparam int TAG = 13;
  logic [TAG-1:0] tag[1:DEPTH];
  logic [DEPTH:1] valid;
  integer k;
  always_ff @(posedge clk)
    if (rst) valid <= '0;
    else if (ce) valid <= {valid[DEPTH-1:1], issue};
  always_ff @(posedge clk)
    if (ce) begin
      tag[1] <= {last_tile[turn] && last_group, half[turn], last_group ? left[3:0] : 4'(LANES_ROW), kind, last_group,
                 turn, last_word, word == 0};
      for (k = 2; k <= DEPTH; k = k + 1) tag[k] <= tag[k-1];
    end
  wire bias_tile = tag[9][2];
  wire group_valid = valid[DEPTH] && tag[DEPTH][1];
  wire tile = tag[DEPTH][2];
  wire group_ready, next_row;
  assign ce = !group_valid || group_ready;
  wire done_now = group_valid && group_ready && tag[DEPTH][3];
  wire [1:0] done = {done_now && tile, done_now && !tile};
  wire [27*LANES_ROW*LANES_OUT-1:0] sums;

  weight_tiles #(.MAX_INPUTS(MAX_INPUTS), .IN(LANES_IN), .OUT(LANES_OUT)) tiles (
      .clk, .rst, .job_valid, .job_ready, .job_rows, .job_words, .job_tiles, .job_epilogue,
      .weight_valid, .weight_ready, .weight_data,
      .ready, .begun, .done, .rows, .words, .epilogue, .last(last_tile), .half, .bias, .factor,
      .ce, .read_address({word[6:0], turn}), .read_data(weights),
      .table_write, .table_address, .table_entries, .table_ready, .table_step, .table_zero, .table_done, .bad_table
  );

  mac_array #(.ROWS(LANES_ROW), .IN(LANES_IN), .OUT(LANES_OUT), .FIELD(FIELD)) array (
      .clk, .ce, .rows(row_data), .weights, .add(valid[9]), .first(tag[9][0]),
      .bias(bias_tile ? bias[26*LANES_OUT+:26*LANES_OUT] : bias[0+:26*LANES_OUT]), .take(group_valid), .next_row, .sums
  );

  linear_epilogue #(.OUT(LANES_OUT)) finish (
      .clk, .rst, .group_valid, .group_ready, .group_factor(tile ? factor[23*LANES_OUT+:23*LANES_OUT] : factor[0+:23*LANES_OUT]),
      .group_rows(tag[DEPTH][10:7]), .group_epilogue(tag[DEPTH][6:4]), .group_half(tag[DEPTH][11]),
      .group_last(tag[DEPTH][12]), .sums(sums[27*LANES_OUT-1:0]), .next_row,
      .stream_valid, .stream_ready, .stream_data, .stream_score, .out_valid, .out_ready, .out_data,
      .table_write, .table_address, .table_entries, .table_step, .table_zero, .table_done
  );
endmodule
