package multiplex

import (
	"bytes"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

func TestNextBlock(t *testing.T) {
	wire := ": sse_fanout\nretry: 1500\nid: 7\n\n" +
		"id: \n: " + audience.GapComment + "\n\n" +
		":\n" +
		"id: 8\nevent: price\nretry: 20\ndata: a\ndata: \ndata: event: x\n\n" +
		"data: b\n\n"
	want := []block{
		{id: []byte("7"), hasID: true, retry: 1500 * time.Millisecond},
		{id: []byte(""), hasID: true, gap: true},
		{id: []byte("8"), hasID: true, typ: []byte("price"), retry: 20 * time.Millisecond, data: []byte("data: a\ndata: \ndata: event: x\n")},
		{data: []byte("data: b\n")},
	}
	rest := []byte(wire)
	for i, w := range want {
		var got block
		got, rest = nextBlock(rest)
		if !bytes.Equal(got.id, w.id) || got.hasID != w.hasID || !bytes.Equal(got.typ, w.typ) ||
			!bytes.Equal(got.data, w.data) || got.gap != w.gap || got.retry != w.retry {
			t.Errorf("block %d is %+v, want %+v", i, got, w)
		}
	}
	if len(rest) != 0 {
		t.Errorf("%q is left", rest)
	}
	for _, torn := range []string{"data: a\n", "id: 1\n", "event", ":\n"} {
		if got, rest := nextBlock([]byte(torn)); got.data != nil || got.hasID || len(rest) != 0 {
			t.Errorf("%q: got %+v and %q", torn, got, rest)
		}
	}
}

// FuzzNextBlock checks that what sse.Append writes is read as it was, whatever the event.
func FuzzNextBlock(f *testing.F) {
	f.Add([]byte("7"), []byte("price"), []byte("a\n\nb"), true)
	f.Add([]byte(""), []byte("data: x"), []byte(""), false)
	f.Add([]byte("id: 3"), []byte(""), []byte("\n: gap: events may be missing here\n"), true)
	f.Fuzz(func(t *testing.T, id, typ, data []byte, hasID bool) {
		e := sse.Event{ID: id, HasID: hasID, Type: typ, Data: data, HasData: true}
		wire := sse.Append(sse.Append(nil, &e), &sse.Event{Data: []byte("next"), HasData: true})
		b, rest := nextBlock(wire)
		if b.gap || b.hasID != hasID || string(rest) != "data: next\n\n" {
			t.Fatalf("%q is read as %+v, with %q behind", wire, b, rest)
		}
		var back []byte
		if b.hasID {
			back = append(append(append(back, "id: "...), b.id...), '\n')
		}
		if len(b.typ) > 0 {
			back = append(append(append(back, "event: "...), b.typ...), '\n')
		}
		back = append(append(back, b.data...), '\n')
		if want := sse.Append(nil, &e); !bytes.Equal(back, want) && len(typ) > 0 && len(b.typ) > 0 {
			t.Errorf("%q is read as %q", want, back)
		}
	})
}
