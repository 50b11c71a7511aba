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
	// restartCost is how many bytes a reader is sent more for a restart: 10 to 75 for JSON objects
	// of 2 KiB and of 200 bytes.
	restartCost = 60

	// minKnown is how many bytes in front of a restart point the compressor is shown at least, if
	// there are as many. With none, a restart costs 150 to 300 bytes; with more, readers wait for
	// longer.
	minKnown = 1 << 10

	// maxKnown is how many bytes it is shown at most.
	maxKnown = 4 << 10

	// minDistance is how far apart restart points are at least, in bytes before compression,
	// if any reader is in step: clients that ask for gzip and do not read wait for ever. It is not
	// below minKnown: what the compressor is shown is behind the last restart point, and so all
	// who were in step have had it.
	minDistance = 2 << 10

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
	known      hub.Cursor  // from where on it refers to the log, if it is
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
	isWord  bool // it is a heartbeat, or in place of a gap
	restart bool
	known   hub.Cursor // from where on it refers to the log, if it is a restart point
}

// A Mark is a place between two pieces, or behind stored blocks that several readers share.
type Mark struct {
	seq    uint64 // of the next piece; 0 behind stored blocks
	cursor hub.Cursor
	since  hub.Cursor // behind stored blocks: what is between here and cursor was of the log
	sum    Sum        // of all that is before it
}

// Cursor returns the place in the log.
func (m Mark) Cursor() hub.Cursor { return m.cursor }

// Is reports whether two marks are the same place between pieces.
func (m Mark) Is(other Mark) bool { return m.seq == other.seq }

// Since returns the cursor since which readers behind stored blocks have had nothing but the log.
func (m Mark) Since() hub.Cursor { return m.since }

// Entries returns the mark behind one for readers that were sent p in stored blocks, which the
// log has up to next.
func (m Mark) Entries(p []byte, next hub.Cursor) Mark {
	return Mark{cursor: next, since: m.since, sum: m.sum.Add(p)}
}

// Words returns the mark behind one for readers that were sent p in stored blocks, which is not
// in the log.
func (m Mark) Words(p []byte) Mark {
	return Mark{cursor: m.cursor, since: m.cursor, sum: m.sum.Add(p)}
}

// Jump returns the mark for readers that go on elsewhere.
func (m Mark) Jump(to hub.Cursor) Mark { return Mark{cursor: to, since: to, sum: m.sum} }

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
	r.end = Mark{seq: r.end.seq + 1, cursor: at, sum: r.end.sum}
	r.isFresh, r.known, r.cut, r.sinceStart, r.wasted = true, at, uncut, 0, 0
	r.beat = r.log.Look(at).Beat
}
