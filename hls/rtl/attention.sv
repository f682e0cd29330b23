// The attention unit (hls/src/attention.cpp) as SystemVerilog, bit for bit the C simulation's values: a key stream
// that never restarts (the reordering of Edge-MoE, Sarkar et al., ICCAD 2023), both passes of the softmax at once.
//
// Per cycle one key and value of one head meet LANES_QUERY queries. Slot j takes a new query when key j goes by; its
// scores lie in a ring of one per key and head. At each key the old query's score is read (its maximum is exact by
// now), weighted, and overwritten by the new query's.
//
// Streams, valid/ready: jobs; quads of the weight image (a factor per head, then one per channel); queries, a head's
// WIDTH values per beat, query by query; keys and values likewise, all tokens once per block of queries; results,
// a head's WIDTH values per beat. Narrower heads fill the beat's low end, the rest of queries and keys zero.
//
// Cycles: (ceil(tokens / LANES_QUERY) + 1) * tokens * heads, then one key per slot to push the last queries out.
module attention #(
    parameter int LANES_QUERY = 4,
    parameter int WIDTH       = 64,
    parameter int MAX_TOKENS  = 1025,
    parameter int MAX_HEADS   = 8,
    parameter int MAX_DIM     = 384,
    parameter int FIELD       = 18   // of packed_dot.sv
) (
    input  wire               clk,
    input  wire               rst,
    input  wire               job_valid,
    output wire               job_ready,
    input  wire [       15:0] job_tokens,
    input  wire [        3:0] job_heads,
    input  wire [        4:0] job_steps,    // width of a head / 4
    input  wire               weight_valid,
    output wire               weight_ready,
    input  wire [      511:0] weight_data,
    input  wire               query_valid,
    output wire               query_ready,
    input  wire [8*WIDTH-1:0] query_data,
    input  wire               key_valid,
    output wire               key_ready,
    input  wire [8*WIDTH-1:0] key_data,
    input  wire [8*WIDTH-1:0] value_data,
    output wire               out_valid,
    input  wire               out_ready,
    output wire [8*WIDTH-1:0] out_data,
    output logic              bad_table     // sticky: a factor outside its range was read
);
  localparam int SCORED = 11;    // cycles from a key to its scores
  localparam int WEIGHED = 17;   // to its weights
  localparam int SUMMED = 19;    // to the sums of weighted values
  localparam int CELLS = MAX_TOKENS * MAX_HEADS;
  localparam int SLOT_BITS = $clog2(LANES_QUERY);
  localparam logic [1:0] IDLE = 0, TABLES = 1, RUN = 2, DRAIN = 3;

  // Tables.
  logic [1:0] state;
  logic [15:0] tokens;
  logic [3:0] heads;
  logic [4:0] steps;
  logic [5:0] quad;
  logic [15:0] results_left;
  logic [22:0] exponent[0:15];
  logic [16*23-1:0] factors[0:MAX_DIM/16-1];
  logic [16*23-1:0] packed_factors;
  logic bad;
  integer i;
  wire [9:0] dim = heads * steps * 4;
  wire loading = state == TABLES && weight_valid;
  logic [SUMMED:1] valid;
  logic [5:0] waiting;  // heads whose sums have not been read
  wire last_beat, out_taken = out_valid && out_ready;
  assign job_ready = state == IDLE;
  assign weight_ready = state == TABLES;

  always_comb begin
    bad = 0;
    for (i = 0; i < 16; i = i + 1) begin
      packed_factors[23*i+:23] = {weight_data[32*i+24+:6], weight_data[32*i+:17]};
      if ((quad != 0 || i < heads) && (weight_data[32*i+17+:7] != 0 || weight_data[32*i+24+:8] == 0
          || weight_data[32*i+24+:8] > 46))
        bad = 1;
    end
  end
  always_ff @(posedge clk) begin
    if (loading && quad == 0) for (i = 0; i < 16; i = i + 1) exponent[i] <= packed_factors[23*i+:23];
    if (loading && quad != 0) factors[quad-1] <= packed_factors;
    if (rst) begin
      state <= IDLE;
      bad_table <= 0;
    end else begin
      case (state)
        IDLE:
        if (job_valid) begin
          tokens <= job_tokens;
          heads <= job_heads;
          steps <= job_steps;
          quad <= 0;
          results_left <= job_tokens * job_heads;
          state <= TABLES;
        end
        TABLES:
        if (loading) begin
          quad <= quad + 1;
          if (bad) bad_table <= 1;
          if ({quad, 4'b0} == dim) state <= RUN;
        end
        RUN: if (last_beat) state <= DRAIN;
        default: if (results_left == 0 && valid == 0 && waiting == 0) state <= IDLE;
      endcase
      if (out_taken) results_left <= results_left - 1;
    end
  end

  // The key stream: head within key, key within block.
  logic [15:0] key, first;  // first: the query that slot 0 takes in this block
  logic [3:0] head;
  logic [13:0] cell_index;
  logic [1:0] blocks;       // two blocks pass before the first queries leave
  wire ce;
  wire [15:0] last_key = tokens - 1;
  wire takes = key < LANES_QUERY;
  wire wants_query = takes && first + key < tokens;
  wire beat = state == RUN && ce && key_valid && (!wants_query || query_valid);
  assign key_ready   = state == RUN && ce && (!wants_query || query_valid);
  assign query_ready = state == RUN && ce && wants_query && key_valid;
  wire last_head = head == heads - 1;
  wire flushing = first >= tokens + 16'(LANES_QUERY);
  assign last_beat = beat && last_head && flushing && (key == last_key || key == LANES_QUERY - 1);
  always_ff @(posedge clk)
    if (rst || state == IDLE) begin
      key <= 0;
      first <= 0;
      head <= 0;
      cell_index <= 0;
      blocks <= 0;
    end else if (beat) begin
      head <= last_head ? 0 : head + 1;
      cell_index <= last_head && key == last_key ? 0 : cell_index + 1;
      if (last_head) key <= key == last_key ? 0 : key + 1;
      if (last_head && key == last_key) begin
        first <= first + LANES_QUERY;
        if (blocks != 2) blocks <= blocks + 1;
      end
    end

  // Tags: {leaves, begins, slot, head, cell}
  localparam int TAG = 19 + SLOT_BITS;
  logic [TAG-1:0] tag[1:SUMMED];
  integer k;
  always_ff @(posedge clk)
    if (rst) valid <= '0;
    else if (ce) valid <= {valid[SUMMED-1:1], beat};
  always_ff @(posedge clk)
    if (ce) begin
      tag[1] <= {takes && blocks == 2, takes, key[SLOT_BITS-1:0], head[2:0], cell_index};
      for (k = 2; k <= SUMMED; k = k + 1) tag[k] <= tag[k-1];
    end

  // Scores: queries are the array's rows, the key its weights, of which quarter j comes j cycles late.
  wire [8*WIDTH*LANES_QUERY-1:0] queries;
  wire [8*WIDTH-1:0] key_late;
  wire [27*LANES_QUERY-1:0] sums;
  genvar j, s;
  generate
    for (j = 0; j < 4; j = j + 1) begin : quarter
      logic [2*WIDTH-1:0] delay[0:j];
      integer d;
      always_ff @(posedge clk)
        if (ce) begin
          delay[0] <= key_data[2*WIDTH*j+:2*WIDTH];
          for (d = 1; d <= j; d = d + 1) delay[d] <= delay[d-1];
        end
      assign key_late[2*WIDTH*j+:2*WIDTH] = delay[j];
    end
  endgenerate
  mac_array #(.ROWS(LANES_QUERY), .IN(WIDTH), .OUT(1), .FIELD(FIELD)) dot (
      .clk, .ce, .rows(queries), .weights(key_late), .add(1'b1), .first(1'b1), .bias(26'b0), .take(1'b1),
      .next_row(1'b0), .sums
  );

  // The ring: the old queries' scores out, the new ones in, a cycle apart.
  (* ram_style = "ultra" *) logic [22*LANES_QUERY-1:0] ring[0:CELLS-1];
  logic [22*LANES_QUERY-1:0] ring_data, scores, forwarded;
  logic forward;  // one token and one head: read what is being written
  wire [13:0] cell_read = tag[SCORED-1][13:0], cell_write = tag[SCORED][13:0];
  always_ff @(posedge clk)
    if (ce) begin
      ring_data <= ring[cell_read];
      forward <= cell_read == cell_write && valid[SCORED];
      forwarded <= scores;
      if (valid[SCORED]) ring[cell_write] <= scores;
    end
  wire [22*LANES_QUERY-1:0] old_scores = forward ? forwarded : ring_data;

  // Values wait for the weights.
  logic [8*WIDTH-1:0] value[1:WEIGHED];
  always_ff @(posedge clk)
    if (ce) begin
      value[1] <= value_data;
      for (k = 2; k <= WEIGHED; k = k + 1) value[k] <= value[k-1];
    end

  wire [2:0] scored_head = tag[SCORED][16:14];
  wire [34*WIDTH*LANES_QUERY-1:0] old_sums;
  wire [26*LANES_QUERY-1:0] old_totals;
  logic [2:0] mean_head;
  generate
    for (s = 0; s < LANES_QUERY; s = s + 1) begin : slot
      // Queries at the array's door.
      (* ram_style = "distributed" *) logic [8*WIDTH-1:0] query[0:MAX_HEADS-1];
      wire begins_now = key == s;
      assign queries[8*WIDTH*s+:8*WIDTH] = begins_now ? query_data : query[head[2:0]];
      always_ff @(posedge clk) if (beat && begins_now) query[head[2:0]] <= query_data;

      // Greatest scores: of the query being scored, and of the one being weighed.
      logic signed [21:0] most[0:MAX_HEADS-1], anchor[0:MAX_HEADS-1];
      wire signed [21:0] score = sums[27*s+:22];
      wire signed [21:0] most_here = most[scored_head];
      wire begins = tag[SCORED][TAG-2] && tag[SCORED][17+:SLOT_BITS] == s;
      wire signed [21:0] anchor_now = begins ? most_here : anchor[scored_head];
      assign scores[22*s+:22] = score;
      always_ff @(posedge clk)
        if (ce && valid[SCORED]) begin
          most[scored_head] <= begins || score > most_here ? score : most_here;
          anchor[scored_head] <= anchor_now;
        end

      wire [15:0] weight;
      exp2_weight soften (
          .clk, .ce, .anchor(anchor_now), .score(old_scores[22*s+:22]), .factor(exponent[{1'b0, scored_head}]), .weight
      );
      attention_slot #(.WIDTH(WIDTH)) weigh (
          .clk, .ce, .weight, .value(value[WEIGHED]), .valid(valid[SUMMED]),
          .begins(tag[SUMMED][TAG-2] && tag[SUMMED][17+:SLOT_BITS] == s), .head(tag[SUMMED][16:14]),
          .read_head(mean_head), .read_sums(old_sums[34*WIDTH*s+:34*WIDTH]), .read_total(old_totals[26*s+:26])
      );
    end
  endgenerate

  // Heads that leave, in the order of their slots' switches; a slot's other bank must have been read by then.
  logic [SLOT_BITS-1:0] mean_slot;
  logic [15:0] mean_query;
  wire [5:0] most_waiting = 6'((tokens < LANES_QUERY ? tokens : 16'(LANES_QUERY)) * heads);
  wire switching = valid[SUMMED] && tag[SUMMED][TAG-2];
  wire leaving = valid[SUMMED] && tag[SUMMED][TAG-1];
  assign ce = !(switching && waiting == most_waiting);
  wire mean_done;
  wire mean_last_head = mean_head == heads - 1;
  wire mean_last_slot = mean_slot == LANES_QUERY - 1 || mean_slot == last_key;
  always_ff @(posedge clk)
    if (rst || state == IDLE) begin
      waiting <= 0;
      mean_slot <= 0;
      mean_head <= 0;
      mean_query <= 0;
    end else begin
      waiting <= waiting + 6'(leaving && ce) - 6'(mean_done);
      if (mean_done) begin
        mean_head <= mean_last_head ? 0 : mean_head + 1;
        if (mean_last_head) begin
          mean_slot  <= mean_last_slot ? 0 : mean_slot + 1;
          mean_query <= mean_query + 1;
        end
      end
    end

  wire [8:0] channel;
  wire [16*23-1:0] channel_factors = factors[channel[8:4]];
  logic [25:0] mean_total;
  logic [34*WIDTH-1:0] mean_sums;
  logic [4*23-1:0] mean_factors;
  integer n;
  always_comb begin
    mean_total = old_totals[25:0];
    mean_sums = old_sums[34*WIDTH-1:0];
    mean_factors = channel_factors[4*23-1:0];
    for (n = 1; n < LANES_QUERY; n = n + 1)
      if (mean_slot == n) begin
        mean_total = old_totals[26*n+:26];
        mean_sums = old_sums[34*WIDTH*n+:34*WIDTH];
      end
    for (n = 1; n < 4; n = n + 1) if (channel[3:2] == n) mean_factors = channel_factors[4*23*n+:4*23];
  end
  attention_mean #(.WIDTH(WIDTH), .LANES(4)) finish (
      .clk, .rst, .available(waiting != 0), .drop(mean_query >= tokens), .total(mean_total),
      .sums(mean_sums), .done(mean_done), .steps, .row_ends(mean_last_head), .channel,
      .factor(mean_factors), .out_valid, .out_ready, .out_data
  );
endmodule
