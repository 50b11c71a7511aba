package direct

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A parcel is what a group, or a socket that is behind, is sent next.
type parcel struct {
	bytes    []byte // shared
	delivery Delivery
	next     hub.Cursor // behind it
	beat     uint64     // heartbeats of the log by then
	isBeat   bool       // it is a heartbeat, as those of a rendition are
	lagged   bool       // the log no longer has it
}

// A leg is the way from one mark of a rendition to the next.
type leg struct{ from, to gzip.Mark }

// lookFor returns what a socket that is behind gets next.
func (g *group) lookFor(k *Socket) parcel {
	var mark gzip.Mark
	if k.gzip != nil {
		mark = k.gzip.Mark()
	}
	return g.look(k.cursor, mark)
}

// look returns what there is at a place in the log, with the words for a gap in place of
// one, or in the rendition of it.
func (g *group) look(at hub.Cursor, mark gzip.Mark) parcel {
	if g.rendition != nil {
		return g.lookCompressed(at, mark)
	}
	batch := g.log.Look(at)
	if batch.Gap {
		batch.Bytes = g.stream.Gap()
	}
	return parcel{
		bytes:    batch.Bytes,
		delivery: Delivery{Events: int(batch.Next - at), Bytes: len(batch.Bytes), Since: batch.Since},
		next:     batch.Next,
		beat:     batch.Beat,
		lagged:   batch.Lagged,
	}
}

func (g *group) lookCompressed(at hub.Cursor, mark gzip.Mark) parcel {
	batch := g.rendition.Read(mark)
	p := parcel{
		bytes:  batch.Bytes,
		next:   batch.Next,
		beat:   g.beat,
		isBeat: batch.Next == at,
		lagged: batch.Lagged,
	}
	if len(p.bytes) > 0 {
		p.delivery = Delivery{
			Events:     batch.Events,
			Bytes:      batch.Plain,
			Since:      batch.Since,
			Compressed: len(batch.Bytes),
			leg:        &leg{mark, batch.Mark()},
		}
	}
	return p
}

// meets reports whether a socket that is behind is where the group is.
func (g *group) meets(k *Socket) bool {
	if k.gzip != nil {
		return k.gzip.Mark().Is(g.mark)
	}
	return k.cursor == g.cursor
}
