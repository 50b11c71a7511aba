package gzip

import (
	"math"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// The distances of restart points, in bytes before compression. Each restart costs all
// readers what the compressor has forgotten, and spares those who wait for it stored blocks.
const (
	// minDistance is how far apart they are while somebody waits for one. At 4 KiB, objects
	// of 2 KiB take 20 to 30 % more bytes, at 16 KiB 3 to 9 %.
	minDistance = 16 << 10

	// maxDistance is how far apart they are at most.
	maxDistance = 64 << 10

	// patience is how long a reader waits for one, and after how long without a piece it
	// does not have to: where little is sent, there is little to lose.
	patience = 10 * time.Second
)

// Settings are what renditions have in common.
type Settings struct {
	Level  int // in [MinLevel, MaxLevel]
	Budget *Budget
}

// A Rendition is a log as its readers get it that accept gzip. It costs nothing until
// somebody joins. All methods may be called from any goroutine.
type Rendition struct {
	// Static after construction.
	log            *hub.Topic
	settings       Settings
	heartbeat, gap []byte

	mu sync.Mutex

	// Guarded by mu.
	readers    int
	inStep     int         // of them
	compressor *compressor // nil without readers
	pieces     []piece     // as far as the log has what they are of
	end        Mark        // behind the last piece
	beat       uint64      // heartbeats of the log by then
	isFresh    bool        // the next piece is a restart point
	sinceStart int         // bytes since the last restart point, before compression
	last       time.Time   // when the last piece was made
	waited     time.Time   // since when a reader waits for a restart point; zero if none does
}

// A piece is a run of the log, compressed.
type piece struct {
	from    Mark
	bytes   []byte
	plain   int // bytes before compression
	since   time.Time
	restart bool
}

// A Mark is a place between two pieces.
type Mark struct {
	seq    uint64 // of the next piece
	cursor hub.Cursor
	sum    Sum // of all pieces before it
}

// Cursor returns the place in the log.
func (m Mark) Cursor() hub.Cursor { return m.cursor }

// Is reports whether two marks are the same place.
func (m Mark) Is(other Mark) bool { return m.seq == other.seq }

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

	mark Mark // behind a piece
}

// Mark returns the place behind a piece.
func (b *Batch) Mark() Mark { return b.mark }

// IsEmpty reports whether there is nothing to send.
func (b *Batch) IsEmpty() bool { return len(b.Bytes) == 0 && len(b.Stored) == 0 }

// NewRendition returns that of a log. What is sent for a heartbeat of the log, and in place
// of a gap, is not empty.
func NewRendition(log *hub.Topic, s Settings, heartbeat, gap []byte) *Rendition {
	return &Rendition{log: log, settings: s, heartbeat: heartbeat, gap: gap}
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
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read(m)
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

func (r *Rendition) read(m Mark) Batch {
	if m.seq == r.end.seq {
		if made, lags := r.extend(math.MaxUint64); !made {
			return Batch{Next: m.cursor, mark: m, Lagged: lags}
		}
	}
	if m.seq < r.first() {
		return Batch{Next: m.cursor, mark: m, Lagged: true}
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
	}
}

// extend makes one more piece, of entries in front of a cursor or of a heartbeat, if there is
// one. It reports whether the log no longer has what would follow.
func (r *Rendition) extend(limit hub.Cursor) (made, lags bool) {
	batch := r.log.LookUntil(r.end.cursor, limit)
	plain := batch.Bytes
	switch {
	case batch.Lagged:
		return false, true
	case batch.Gap:
		plain = r.gap
	case len(plain) == 0 && batch.Beat == r.beat:
		return false, false
	case len(plain) == 0:
		plain = r.heartbeat
	}
	now := time.Now()
	p := piece{from: r.end, plain: len(plain), since: batch.Since, restart: r.isDue(now)}
	if p.restart {
		r.compressor.restart()
		r.isFresh, r.sinceStart, r.waited = false, 0, time.Time{}
	}
	p.bytes = r.compressor.compress(plain)
	r.pieces = append(r.pieces, p)
	r.end = Mark{r.end.seq + 1, batch.Next, r.end.sum.Add(plain)}
	r.beat, r.last = batch.Beat, now
	r.sinceStart += len(plain)
	r.trim()
	return true, false
}

// isDue reports whether the next piece is to be a restart point.
func (r *Rendition) isDue(now time.Time) bool {
	switch {
	case r.isFresh, r.sinceStart >= maxDistance, r.inStep == 0:
		return true
	case r.waited.IsZero():
		return false
	}
	return r.sinceStart >= minDistance || now.Sub(r.waited) >= patience || now.Sub(r.last) >= patience
}

// begin makes the rendition go on at a cursor, with a restart point. Whoever is in step lags.
func (r *Rendition) begin(at hub.Cursor) {
	r.pieces = nil
	r.end = Mark{r.end.seq + 1, at, r.end.sum}
	r.isFresh, r.sinceStart, r.waited = true, 0, time.Time{}
	r.beat = r.log.Look(at).Beat
}

// enter returns the restart point at which a reader at a cursor gets in step, if it can now.
// Otherwise it returns the cursor of the one that it will meet first, if that is known: up to
// there, it gets stored blocks.
func (r *Rendition) enter(at hub.Cursor) (m Mark, ok bool, limit hub.Cursor) {
	if next, ok := r.restartFrom(at); ok {
		return next, next.cursor == at, next.cursor
	}
	if r.inStep == 0 && at != r.end.cursor {
		r.begin(at) // nobody needs what lies before it
	}
	for r.end.cursor < at {
		if made, _ := r.extend(at); !made {
			r.begin(at)
		}
	}
	now := time.Now()
	if r.waited.IsZero() {
		r.waited = now
	}
	if r.end.cursor > at {
		return Mark{}, false, r.end.cursor
	}
	if !r.isDue(now) {
		return Mark{}, false, math.MaxUint64
	}
	r.isFresh = true
	return r.end, true, at
}

// restartFrom returns the first restart point at a cursor or behind it.
func (r *Rendition) restartFrom(at hub.Cursor) (Mark, bool) {
	first := len(r.pieces)
	for first > 0 && r.pieces[first-1].from.cursor >= at {
		first--
	}
	for _, p := range r.pieces[first:] {
		if p.restart {
			return p.from, true
		}
	}
	return Mark{}, false
}
