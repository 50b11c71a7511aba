package gzip

import "github.com/sse-fanout/caddy-sse-fanout/internal/hub"

// A draft is a piece before it is compressed.
type draft struct {
	piece
	compressor *compressor
	text       []byte
	next       hub.Cursor
	beat       uint64 // heartbeats of the log by then
}

// extend makes the piece at a mark, if that is the end, of entries in front of a cursor or of a
// heartbeat. It reports whether there is a piece there now, and whether the log no longer has
// what would be in it.
func (r *Rendition) extend(m Mark, limit hub.Cursor) (made, lags bool) {
	r.making.Lock()
	defer r.making.Unlock()
	d, made, lags := r.draft(m, limit)
	if d == nil {
		return made, lags
	}
	if d.restart {
		d.compressor.restart(r.text(d.known, d.from.cursor))
	}
	d.bytes = d.compressor.compress(d.text)
	r.append(d, d.from.sum.Add(d.text))
	return true, false
}

// draft returns what is to be compressed next, or nil: there is a piece at the mark, or nothing
// to make one of. r.making must be held.
func (r *Rendition) draft(m Mark, limit hub.Cursor) (d *draft, made, lags bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.seq != r.end.seq {
		return nil, true, false
	}
	if r.end.cursor < r.cut {
		limit = min(limit, r.cut)
	}
	batch := r.log.LookUntil(r.end.cursor, limit)
	text := batch.Bytes
	switch {
	case batch.Lagged:
		return nil, false, true
	case batch.Gap:
		text = r.gap
	case len(text) == 0 && batch.Beat == r.beat:
		return nil, false, false
	case len(text) == 0:
		text = r.heartbeat
	}
	if r.sinceStart >= maxDistance && r.cut == uncut && !r.isFresh {
		r.refresh()
	}
	return &draft{
		piece: piece{
			from:    r.end,
			plain:   len(text),
			since:   batch.Since,
			isWord:  batch.Gap || len(batch.Bytes) == 0,
			restart: r.isFresh,
			known:   r.known,
		},
		compressor: r.compressor,
		text:       text,
		next:       batch.Next,
		beat:       batch.Beat,
	}, false, false
}

// append adds a piece, with the sum of all up to its end.
func (r *Rendition) append(d *draft, sum Sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.from.seq != r.end.seq {
		return // all who were in step have left meanwhile, and others have begun elsewhere
	}
	if d.restart { // those who wait get in step there
		r.isFresh, r.sinceStart, r.wasted = false, 0, 0
	} else {
		r.wasted += (r.readers - r.inStep) * max(0, d.plain-len(d.bytes))
	}
	r.pieces = append(r.pieces, d.piece)
	r.end = Mark{seq: r.end.seq + 1, cursor: d.next, sum: sum}
	r.beat = d.beat
	r.sinceStart += d.plain
	if r.end.cursor == r.cut {
		r.refresh()
	}
	r.trim()
}

// text returns the end of what the log has between two cursors, or nothing if it no longer has
// all of that.
func (r *Rendition) text(from, to hub.Cursor) (text []byte) {
	for from < to {
		batch := r.log.LookUntil(from, to)
		if batch.Lagged {
			return nil
		}
		text = append(text, lastOf(batch.Bytes)...)
		from = batch.Next
	}
	return lastOf(text)
}

func lastOf(text []byte) []byte { return text[max(0, len(text)-maxKnown):] }
