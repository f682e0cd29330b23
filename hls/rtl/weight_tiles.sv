// The weight stream of the linear unit: reads jobs' GELU tables, biases, factors and weights in the order of the
// weight image (compiler/edgemtl_compiler/hls/image.py), and keeps two tiles of OUT channels. While one tile is
// computed with, the other is filled, also across the end of a job.
module weight_tiles #(
    parameter int MAX_INPUTS = 1536,
    parameter int IN         = 16,
    parameter int OUT        = 16
) (
    input  wire                 clk,
    input  wire                 rst,
    input  wire                 job_valid,
    output wire                 job_ready,
    input  wire  [15:0]         job_rows,
    input  wire  [ 7:0]         job_words,     // inputs / IN
    input  wire  [ 7:0]         job_tiles,     // outputs / OUT, rounded up
    input  wire  [ 2:0]         job_epilogue,
    input  wire                 weight_valid,
    output wire                 weight_ready,
    input  wire  [32*OUT-1:0]   weight_data,   // a quad: one 128-bit word of each of four ports
    // Both tiles: what to compute, and that all of it is here.
    output logic [ 1:0]         ready,
    input  wire  [ 1:0]         begun,         // the last row group of the tile has been issued
    input  wire  [ 1:0]         done,          // nobody reads the tile any more
    output logic [2*16-1:0]     rows,
    output logic [2*8-1:0]      words,
    output logic [2*3-1:0]      epilogue,
    output logic [ 1:0]         last,          // of the job
    output logic [ 1:0]         half,          // of the GELU tables
    output logic [2*26*OUT-1:0] bias,
    output logic [2*23*OUT-1:0] factor,        // shift above multiplier
    // Weights of IN inputs; the address of quarter j is used j cycles late.
    input  wire                 ce,
    input  wire  [ 7:0]         read_address,  // {word, tile}
    output wire  [8*IN*OUT-1:0] read_data,
    // GELU tables, double-buffered: four entries per cycle.
    output logic                table_write,
    output wire  [ 7:0]         table_address,
    output wire  [63:0]         table_entries,
    output logic [ 1:0]         table_ready,
    output logic [ 7:0]         table_step,
    output logic [19:0]         table_zero,
    input  wire  [ 1:0]         table_done,    // the half's last value has left the unit
    output logic                bad_table      // sticky: a bias factor or GELU header outside its range was read
);
  localparam int QUARTER = 8 * IN * OUT / 4;
  localparam int DEPTH = MAX_INPUTS / IN;
  localparam int BIAS_LIMIT = (1 << 25) - 1;
  localparam logic [1:0] IDLE = 0, GELU = 1, CHANNELS = 2, WEIGHTS = 3;

  logic [1:0] state, full;
  logic fill;  // the tile being filled
  logic [8:0] count;
  logic [7:0] tiles_left, words_now;
  logic [15:0] rows_now;
  logic [2:0] epilogue_now;
  logic half_now;

  // A half is taken from its load until its last value has left.
  logic [1:0] table_taken;
  logic copying;
  logic [6:0] copied;
  wire may_load_table = !copying && !table_taken[half_now];
  assign weight_ready = state == GELU ? count != 0 || may_load_table
      : state == CHANNELS ? !full[fill] : state == WEIGHTS;
  assign job_ready = state == IDLE;
  wire job_gelu = job_epilogue[2:1] == 2'b10;
  wire read = weight_valid && weight_ready;

  integer o, t;
  function automatic logic [25:0] load_bias(input logic signed [31:0] value);
    load_bias = value > BIAS_LIMIT ? 26'(BIAS_LIMIT) : value < -BIAS_LIMIT ? 26'(-BIAS_LIMIT) : value[25:0];
  endfunction
  function automatic logic bad_factor(input logic [31:0] value);
    bad_factor = value[23:17] != 0 || value[31:24] == 0 || value[31:24] > 46;
  endfunction

  always_ff @(posedge clk)
    if (rst) begin
      state <= IDLE;
      fill <= 0;
      full <= 0;
      ready <= 0;
      half_now <= 0;
      table_taken <= 0;
      bad_table <= 0;
    end else begin
      ready <= ready & ~begun;
      full <= full & ~done;
      table_taken <= table_taken & ~table_done;
      case (state)
        IDLE:
        if (job_valid) begin
          rows_now <= job_rows;
          words_now <= job_words;
          tiles_left <= job_tiles;
          epilogue_now <= job_epilogue;
          if (job_gelu) half_now <= !half_now;
          count <= 0;
          state <= job_gelu ? GELU : CHANNELS;
        end
        GELU:
        if (read) begin
          if (count == 0) begin
            table_taken[half_now] <= 1;
            table_step[4*half_now+:4] <= weight_data[3:0];
            table_zero[10*half_now+:10] <= weight_data[41:32];
            if (weight_data[31:4] != 0 || $signed(weight_data[63:32]) > 256 || $signed(weight_data[63:32]) < -256)
              bad_table <= 1;
          end
          count <= count == 16 ? 0 : count + 1;
          if (count == 16) state <= CHANNELS;
        end
        CHANNELS:
        if (read) begin
          // Channel o of the quad; where it goes is compared, for an index that varies costs a shifter.
          for (o = 0; o < OUT / 2; o = o + 1) begin
            for (t = 0; t < 4; t = t + 1)
              if ({fill, count[0]} == t) begin
                bias[26*(OUT/2*t+o)+:26] <= load_bias(weight_data[64*o+:32]);
                factor[23*(OUT/2*t+o)+:23] <= {weight_data[64*o+56+:6], weight_data[64*o+32+:17]};
              end
            if (bad_factor(weight_data[64*o+32+:32])) bad_table <= 1;
          end
          count <= count == 1 ? 0 : count + 1;
          if (count == 1) state <= WEIGHTS;
          if (count == 1) full[fill] <= 1;
        end
        default:
        if (read) begin
          count <= count + 1;
          if (count + 1 == {words_now[6:0], 2'b0}) begin
            ready[fill] <= 1;
            rows[16*fill+:16] <= rows_now;
            words[8*fill+:8] <= words_now;
            epilogue[3*fill+:3] <= epilogue_now;
            last[fill] <= tiles_left == 1;
            half[fill] <= half_now;
            fill <= !fill;
            count <= 0;
            tiles_left <= tiles_left - 1;
            state <= tiles_left == 1 ? IDLE : CHANNELS;
          end
        end
      endcase
    end

  genvar g;
  generate
    for (g = 0; g < 4; g = g + 1) begin : quarter
      (* ram_style = "block" *) logic [QUARTER-1:0] memory[0:2*DEPTH-1];
      logic [QUARTER-1:0] data;
      wire [7:0] address;
      if (g == 0) assign address = read_address;
      else begin : late
        logic [7:0] delay[0:g-1];
        integer d;
        always_ff @(posedge clk)
          if (ce) begin
            delay[0] <= read_address;
            for (d = 1; d < g; d = d + 1) delay[d] <= delay[d-1];
          end
        assign address = delay[g-1];
      end
      always_ff @(posedge clk) begin
        if (state == WEIGHTS && read && count[1:0] == g) memory[{count[8:2], fill}] <= weight_data;
        if (ce) data <= memory[address];
      end
      assign read_data[QUARTER*g+:QUARTER] = data;
    end
  endgenerate

  // The table is staged as it comes, then copied to the lanes' memories while the first tile is read.
  logic [32*OUT-1:0] staging[0:15];
  logic copy_half;
  wire [32*OUT-1:0] staged = staging[copied[6:3]];
  assign table_write   = copying;
  assign table_address = {copy_half, copied};
  assign table_entries = staged[64*copied[2:0]+:64];
  always_ff @(posedge clk) begin
    if (state == GELU && read && count != 0) staging[count-1] <= weight_data;
    if (rst) begin
      copying <= 0;
      table_ready <= 0;
    end else begin
      table_ready <= table_ready & ~table_done;
      if (copying) begin
        copied <= copied + 1;
        if (copied == 127) begin
          copying <= 0;
          table_ready[copy_half] <= 1;
        end
      end
      if (state == GELU && read && count == 16) begin
        copying <= 1;
        copied <= 0;
        copy_half <= half_now;
      end
    end
  end
endmodule
