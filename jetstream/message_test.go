package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

func TestMessagesKeepTheirHeader(t *testing.T) {
	t.Parallel()
	for _, m := range []message{
		{kind: kindMarker, epoch: epoch{0, 1}, part: 1, parts: 1, body: []byte("node")},
		{kind: kindEvent, epoch: epoch{3, 1<<64 - 1}, index: 1<<64 - 1, part: 2, parts: 3},
		{kind: kindLeft, epoch: epoch{1, 2}, index: 7, acked: 6, part: 1, parts: 1},
	} {
		msg := m.encode("S.topic")
		got, err := decodeMessage(msg.Header, msg.Data)
		if err != nil || got.kind != m.kind || got.epoch != m.epoch || got.index != m.index || got.acked != m.acked ||
			got.part != m.part || got.parts != m.parts || !bytes.Equal(got.body, m.body) {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	}
}

func TestMessagesOfOthersAreErrors(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]error{
		"2 e 0.1 1 1/1": errVersion, "": errVersion, "1": errMessage, "1 e 0.1 2 0": errMessage, "1 ev 0.1 2 0 1/1": errMessage,
		"1 e 0 2 0 1/1": errMessage, "1 e 0.1 -1 0 1/1": errMessage, "1 e 0.1 2 0 0/1": errMessage, "1 e 0.1 2 0 2/1": errMessage,
		"1 e 0.1 0 0 1/1": errMessage, "1 m 0.1 1 0 1/1": errMessage, "1 o 0.1 2 0 1/2": errMessage, "1 e 0.1 2 0 1/9999999": errMessage,
		"1 e 0.1 2 0 1/1 ": errMessage, "1 e 0.1 2 3 1/1": errMessage, "1 e 0.1 1 0 1/1": errMessage, "1 r 0.1 2 0 1/1": errMessage,
	} {
		if _, err := decodeMessage(nats.Header{header: {value}}, nil); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", value, err, want)
		}
	}
	if _, err := decodeMessage(nil, nil); !errors.Is(err, errNotOurs) {
		t.Errorf("no header: %v", err)
	}
}

func TestEpochsAreOrdered(t *testing.T) {
	t.Parallel()
	rising := []epoch{{}, {0, 1}, {0, 2}, {1, 1}, {1, 5}, {2, 0}}
	for i, a := range rising {
		for j, b := range rising {
			if a.less(b) != (i < j) {
				t.Errorf("%s less than %s: %t", a, b, a.less(b))
			}
		}
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	p := place{epoch{1, 2}, 3}
	if got, err := parsePlace(p.String()); err != nil || got != p {
		t.Errorf("%v became %v, %v", p, got, err)
	}
	for _, text := range []string{"", "1.2", "1.2 x", "1.2 3 4", "1.-2 3"} {
		if _, err := parsePlace(text); !errors.Is(err, errMessage) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func equalEvents(a, b *sse.Event) bool {
	return bytes.Equal(a.ID, b.ID) && bytes.Equal(a.Type, b.Type) && bytes.Equal(a.Data, b.Data) && a.Retry == b.Retry &&
		a.HasID == b.HasID && a.HasData == b.HasData && a.HasRetry == b.HasRetry
}

// FuzzEvents sends any event in parts of any size and checks that the same comes out.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("1"), []byte("price"), []byte("data\nof two lines"), int64(3000), uint8(7), uint16(5))
	f.Add([]byte{}, []byte{}, []byte{}, int64(0), uint8(0), uint16(1))
	f.Add([]byte("\x80\xff"), []byte(strings.Repeat("t", 300)), bytes.Repeat([]byte{0}, 3000), int64(1)<<40, uint8(5), uint16(1000))
	f.Fuzz(func(t *testing.T, id, typ, data []byte, retry int64, has uint8, limit uint16) {
		e := sse.Event{Type: typ, HasID: has&1 != 0, HasRetry: has&2 != 0, HasData: has&4 != 0}
		if e.HasID {
			e.ID = id
		}
		if e.HasRetry {
			e.Retry = time.Duration(uint64(retry)%(maxRetryMillis+1)) * time.Millisecond
		}
		if e.HasData {
			e.Data = data
		}
		encoded := appendEvent(nil, &e)
		parts := split(encoded, int(limit)+1)
		a := assembler{limit: len(encoded)}
		for i, part := range parts {
			m := message{kind: kindEvent, epoch: epoch{0, 1}, index: uint64(i + 2), part: i + 1, parts: len(parts), body: part}
			msg := m.encode("S.topic")
			got, err := decodeMessage(msg.Header, msg.Data)
			if err != nil {
				t.Fatal(err)
			}
			body, err := a.add(&got)
			if err != nil || (body != nil) != (i == len(parts)-1) {
				t.Fatalf("part %d of %d: %d bytes, %v", i+1, len(parts), len(body), err)
			}
			if body == nil {
				continue
			}
			back, err := decodeEvent(body)
			if err != nil || !equalEvents(&e, &back) {
				t.Fatalf("%+v became %+v, %v", e, back, err)
			}
		}
	})
}

// FuzzDecode decodes any bytes, as anybody may publish who has the permission.
func FuzzDecode(f *testing.F) {
	f.Add("1 e 0.1 2 1 1/1", []byte("\x05\x011\x00data"))
	f.Add("1 m 0.1 0 0 1/1", []byte("node"))
	f.Add("1 o 0.1 2 1 1/1", []byte(`{"header":{"X":["y"]}}`))
	f.Add("1 x 0.1 2 1 1/1", []byte(`{"verdict":4}`))
	f.Add("1 e 0.1 2 1 1/1", []byte("\x03\x80"))
	f.Add("1 \xb0 0.1 2 1 1/1", []byte("0")) // it was encoded as two bytes
	f.Fuzz(func(t *testing.T, value string, body []byte) {
		m, err := decodeMessage(nats.Header{header: {value}}, body)
		if err != nil {
			return
		}
		again, err := decodeMessage(m.encode("S.t").Header, body)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
		_, _ = decodeOpening(body)
		_, _ = decodeOutcome(body)
		_, _, _ = decodeResumed(body)
		if e, err := decodeEvent(body); err == nil {
			back, err := decodeEvent(appendEvent(nil, &e))
			if err != nil || !equalEvents(&e, &back) {
				t.Fatalf("%+v became %+v, %v", e, back, err)
			}
		}
	})
}

func TestPartsOfWhichTheFirstAreGone(t *testing.T) {
	t.Parallel()
	a := assembler{limit: 10}
	take := func(part, parts int, body string) string {
		got, err := a.add(&message{part: part, parts: parts, body: []byte(body)})
		if err != nil {
			return err.Error()
		}
		return string(got)
	}
	for _, c := range []struct {
		part, parts int
		body, want  string
	}{
		{2, 3, "b", ""}, {3, 3, "c", ""}, // the first is not in the stream any more
		{1, 2, "a", ""}, {2, 2, "b", "ab"},
		{1, 3, "a", ""}, {1, 1, "x", "x"}, {2, 3, "b", ""}, {3, 3, "c", ""}, // its holder has died in between
		{1, 2, "123456", ""}, {2, 2, "78901", errTooLarge.Error()},
		{1, 1, "y", "y"},
	} {
		if got := take(c.part, c.parts, c.body); got != c.want {
			t.Errorf("part %d/%d %q: %q, want %q", c.part, c.parts, c.body, got, c.want)
		}
	}
}
