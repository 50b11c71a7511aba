package direct

import (
	"math"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A parcel is what a crowd, or a socket that is behind, is sent next.
type parcel struct {
	bytes    []byte // shared
	stored   bool   // bytes go into stored blocks of gzip
	delivery Delivery
	next     hub.Cursor // behind it
	beat     uint64     // heartbeats of the log by then
	isBeat   bool       // it is a heartbeat
	lagged   bool       // the log no longer has it
}

// A leg is the way from one mark to the next.
type leg struct{ from, to gzip.Mark }

// everything is the limit of a parcel that has none.
const everything hub.Cursor = math.MaxUint64

// look returns what the crowd is sent next, of entries in front of a cursor.
func (c *crowd) look(limit hub.Cursor) parcel {
	g := c.group
	p := g.look(c.waits(), c.cursor, limit, c.mark)
	if len(p.bytes) == 0 && !p.lagged && g.rendition != nil && !c.waits() {
		p.beat = c.beat // a rendition has heartbeats as pieces
	}
	if len(p.bytes) == 0 && !p.lagged && p.beat != c.beat {
		p.bytes, p.isBeat = g.stream.Heartbeat(), true
		p.seal(c.mark)
	}
	return p
}

// lookFor returns what a socket that is behind is sent next.
func (g *group) lookFor(k *Socket, limit hub.Cursor) parcel {
	var mark gzip.Mark
	if k.gzip != nil {
		mark = k.gzip.Mark()
	}
	return g.look(k.waits, k.cursor, limit, mark)
}

// look returns what there is at a place in the log, with the words for a gap in place of
// one, or in the rendition of it.
func (g *group) look(waits bool, at, limit hub.Cursor, mark gzip.Mark) parcel {
	if g.rendition != nil && !waits {
		return g.lookCompressed(at, mark)
	}
	batch := g.log.LookUntil(at, limit)
	if batch.Gap {
		batch.Bytes = g.stream.Gap()
	}
	p := parcel{
		bytes:    batch.Bytes,
		stored:   waits,
		delivery: Delivery{Events: int(batch.Next - at), Bytes: len(batch.Bytes), Since: batch.Since},
		next:     batch.Next,
		beat:     batch.Beat,
		lagged:   batch.Lagged,
	}
	p.seal(mark)
	return p
}

// seal completes a parcel that goes into stored blocks behind a mark.
func (p *parcel) seal(mark gzip.Mark) {
	if p.stored && len(p.bytes) > 0 {
		p.delivery.Compressed = gzip.StoredSize(len(p.bytes))
		behind := mark.Entries(p.bytes, p.next)
		if p.isBeat {
			behind = mark.Words(p.bytes)
		}
		p.delivery.leg = &leg{mark, behind}
	}
}

func (g *group) lookCompressed(at hub.Cursor, mark gzip.Mark) parcel {
	batch := g.rendition.Read(mark)
	p := parcel{
		bytes:  batch.Bytes,
		next:   batch.Next,
		isBeat: batch.Next == at,
		lagged: batch.Lagged,
	}
	if len(p.bytes) == 0 {
		return p
	}
	p.delivery = Delivery{
		Events:     batch.Events,
		Since:      batch.Since,
		Compressed: len(batch.Bytes),
		leg:        &leg{mark, batch.Mark()},
	}
	if !p.isBeat {
		p.delivery.Bytes = batch.Plain
	}
	return p
}

// size is how many bytes of data are sent.
func (p *parcel) size() int {
	if p.stored {
		return p.delivery.Compressed
	}
	return len(p.bytes)
}

// appendFrame appends the chunk of a parcel that is not large.
func (p *parcel) appendFrame(b []byte) []byte {
	b = appendChunkSize(b, p.size())
	if p.stored {
		b = append(gzip.AppendStored(b, p.bytes), gzip.Flush...)
	} else {
		b = append(b, p.bytes...)
	}
	return append(b, chunkEnd...)
}

// rest returns what a socket that is behind is to be sent.
func (p *parcel) rest() *rest {
	r := &rest{delivery: p.delivery, beat: p.isBeat}
	if len(p.bytes) <= largeFrame {
		// A frame of its own, as it may be held for long.
		r.bytes = p.appendFrame(make([]byte, 0, p.size()+16))
		return r
	}
	r.bytes = appendChunkSize(nil, p.size())
	if p.stored {
		r.more = gzip.StoredParts(p.bytes)
	} else {
		r.more = [][]byte{p.bytes}
	}
	r.more = append(r.more, []byte(chunkEnd))
	return r
}
