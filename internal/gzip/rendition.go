package gzip

import (
	"math"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A restart costs each reader that is in step what the compressor has forgotten, and spares
// those that wait for it stored blocks. So it is due when those that wait have been sent as many
// bytes more than in step as it costs the others. More of them would cost more, and fewer, too.
const (
	// restartCost is how many bytes a reader is sent more for a restart: 250 to 400 for JSON
	// objects of 200 bytes and of 2 KiB.
	restartCost = 400

	// minDistance is how far apart restart points are at least, in bytes before compression,
	// if any reader is in step: clients that ask for gzip and do not read wait for ever.
	minDistance = 4 << 10

	// maxDistance is how far apart they are at most: what a reader that waits is sent as it is.
	maxDistance = 64 << 10
)

// Settings are what renditions have in common.
type Settings struct {
	Level  int // in [MinLevel, MaxLevel]
	Budget *Budget
}

// A Rendition is a log as its readers get it that accept gzip. It costs nothing until
// somebody joins. All methods may be called from any goroutine.
//
// A piece is compressed with making held, and with mu free: readers that are behind, and those
// that get stored blocks, do not wait for the compressor.
type Rendition struct {
	// Static after construction.
	log            *hub.Log
	settings       Settings
	heartbeat, gap []byte

	making sync.Mutex // held by whoever makes a piece; before mu

	mu sync.Mutex

	// Guarded by mu.
	readers    int
	inStep     int         // of them
	compressor *compressor // nil without readers; used with making held
	pieces     []piece     // as far as the log has what they are of
	end        Mark        // behind the last piece
	beat       uint64      // heartbeats of the log by then
	isFresh    bool        // the next piece is a restart point
	cut        hub.Cursor  // where a restart point will be, if it is ahead of end; else uncut
	sinceStart int         // bytes since the last restart point, before compression
	wasted     int         // bytes that those who wait were sent more than others since then
}

// uncut is the cut of a rendition that has none. No entry has this number.
const uncut hub.Cursor = math.MaxUint64

// A piece is a run of the log, compressed.
type piece struct {
	from    Mark
	bytes   []byte
	plain   int // bytes before compression
	since   time.Time
	restart bool
}

// A Mark is a place between two pieces, or behind stored blocks that several readers share.
type Mark struct {
	seq    uint64 // of the next piece
	cursor hub.Cursor
	sum    Sum // of all that is before it
}

// Cursor returns the place in the log.
func (m Mark) Cursor() hub.Cursor { return m.cursor }

// Is reports whether two marks are the same place between pieces.
func (m Mark) Is(other Mark) bool { return m.seq == other.seq }

// Stored returns the mark behind one for readers that were sent p in stored blocks.
func (m Mark) Stored(p []byte) Mark { return Mark{sum: m.sum.Add(p)} }

// A Batch is what a reader gets next.
type Batch struct {
	// Bytes are a piece: shared, never to be modified. It is of Plain bytes and Events
	// entries of the log, or of a heartbeat if there are no Events.
	Bytes  []byte
	Plain  int
	Events int

	// Stored are Plain bytes to be sent in stored blocks, in place of Bytes: shared, too.
	Stored []byte

	// Next is the cursor behind them.
	Next hub.Cursor

	// Since is when the first of the entries was published.
	Since time.Time

	// Lagged says that the log no longer has what comes next.
	Lagged bool

	mark Mark // behind it
}

// Mark returns the place behind the batch.
func (b *Batch) Mark() Mark { return b.mark }

// IsEmpty reports whether there is nothing to send.
func (b *Batch) IsEmpty() bool { return len(b.Bytes) == 0 && len(b.Stored) == 0 }

// NewRendition returns that of a log. What is sent for a heartbeat of the log, and in place
// of a gap, is not empty.
func NewRendition(log *hub.Log, s Settings, heartbeat, gap []byte) *Rendition {
	return &Rendition{log: log, settings: s, heartbeat: heartbeat, gap: gap, cut: uncut}
}

// Has reports whether these are what the rendition sends for a heartbeat and for a gap.
func (r *Rendition) Has(heartbeat, gap []byte) bool {
	return string(r.heartbeat) == string(heartbeat) && string(r.gap) == string(gap)
}

// Join returns the stream of one more reader. It reports false if there are too many
// compressors.
func (r *Rendition) Join() (*Stream, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers == 0 {
		if !r.settings.Budget.take() {
			return nil, false
		}
		r.compressor = newCompressor(r.settings.Level)
		r.begin(r.log.Newest().Cursor)
	}
	r.readers++
	return &Stream{rendition: r}, true
}

// leave gives the compressor and all pieces back with the last reader. r.mu must be held.
func (r *Rendition) leave() {
	if r.readers--; r.readers > 0 {
		return
	}
	r.compressor, r.pieces = nil, nil
	r.settings.Budget.give()
}

// Read returns the piece at a mark. If there is none yet, it is made of what the log has.
func (r *Rendition) Read(m Mark) Batch {
	for {
		if batch, ok := r.at(m); ok {
			return batch
		}
		if made, lags := r.extend(m, math.MaxUint64); !made {
			return Batch{Next: m.cursor, mark: m, Lagged: lags}
		}
	}
}

// Newest returns the mark behind the last piece.
func (r *Rendition) Newest() Mark {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}

// Trim forgets the pieces of what the log has no more.
func (r *Rendition) Trim() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trim()
}

func (r *Rendition) trim() {
	for len(r.pieces) > 0 && r.log.Look(r.pieces[0].from.cursor).Lagged {
		r.pieces[0] = piece{}
		r.pieces = r.pieces[1:]
	}
	if len(r.pieces) == 0 {
		r.pieces = nil
	}
}

// first is the number of the oldest piece.
func (r *Rendition) first() uint64 { return r.end.seq - uint64(len(r.pieces)) }

// at returns the piece at a mark, if it was made.
func (r *Rendition) at(m Mark) (Batch, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.seq == r.end.seq {
		return Batch{}, false
	}
	if m.seq < r.first() {
		return Batch{Next: m.cursor, mark: m, Lagged: true}, true
	}
	i := int(m.seq - r.first()) //nolint:gosec // an index
	p, next := &r.pieces[i], r.end
	if i+1 < len(r.pieces) {
		next = r.pieces[i+1].from
	}
	return Batch{
		Bytes:  p.bytes,
		Plain:  p.plain,
		Events: int(next.cursor - p.from.cursor), //nolint:gosec // of one segment
		Next:   next.cursor,
		Since:  p.since,
		mark:   next,
	}, true
}

// begin makes the rendition go on at a cursor, with a restart point. Whoever is in step lags.
// r.mu must be held.
func (r *Rendition) begin(at hub.Cursor) {
	r.pieces = nil
	r.end = Mark{r.end.seq + 1, at, r.end.sum}
	r.isFresh, r.cut, r.sinceStart, r.wasted = true, uncut, 0, 0
	r.beat = r.log.Look(at).Beat
}
