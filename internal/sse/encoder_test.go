package sse

import (
	"testing"
	"time"
)

func TestAppend(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event Event
		want  string
	}{
		{"all fields", Event{ID: []byte("7"), HasID: true, Type: []byte("tick"), Data: []byte("x"), HasData: true, Retry: 50 * time.Millisecond, HasRetry: true}, "id: 7\nevent: tick\nretry: 50\ndata: x\n\n"},
		{"data alone", Event{Data: []byte("x"), HasData: true}, "data: x\n\n"},
		{"empty data", Event{HasData: true}, "data: \n\n"},
		{"id alone", Event{ID: []byte("7"), HasID: true}, "id: 7\n\n"},
		{"empty id", Event{HasID: true}, "id: \n\n"},
		{"retry alone", Event{Retry: 2 * time.Second, HasRetry: true}, "retry: 2000\n\n"},
		{"zero retry", Event{HasRetry: true}, "retry: 0\n\n"},
		{"fraction of a millisecond", Event{Retry: 1999 * time.Microsecond, HasRetry: true}, "retry: 1\n\n"},
		{"negative retry", Event{Retry: -time.Second, HasRetry: true}, "retry: 0\n\n"},
		{"values without their flags", Event{ID: []byte("7"), Data: []byte("x"), Retry: time.Second}, "\n"},
		{"leading space", Event{Data: []byte("  x"), HasData: true}, "data:   x\n\n"},
		{"lines", Event{Data: []byte("1\n2\n\n4"), HasData: true}, "data: 1\ndata: 2\ndata: \ndata: 4\n\n"},
		{"LF at the end", Event{Data: []byte("1\n"), HasData: true}, "data: 1\ndata: \n\n"},
		{"CR is a line end", Event{Data: []byte("1\r\rid: 3\r"), HasData: true}, "data: 1\ndata: \ndata: id: 3\ndata: \n\n"},
		{"CRLF is one line end", Event{Data: []byte("1\r\n2\r\n\r\n4\n\r6\r\n"), HasData: true}, "data: 1\ndata: 2\ndata: \ndata: 4\ndata: \ndata: 6\ndata: \n\n"},
		{"line ends in id and type", Event{ID: []byte("1\r\ndata: x"), HasID: true, Type: []byte("\na\rb\n\n"), Data: []byte("x"), HasData: true}, "id: 1data: x\nevent: ab\ndata: x\n\n"},
		{"NUL", Event{ID: []byte("\x001\x00"), HasID: true, Type: []byte("a\x00"), Data: []byte("\x00"), HasData: true}, "id: 1\nevent: a\x00\ndata: \x00\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(Append([]byte("dst"), &tc.event)); got != "dst"+tc.want {
				t.Errorf("got %q, want %q", got, "dst"+tc.want)
			}
		})
	}
}

func TestAppendComment(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"text", "hello", ": hello\n"},
		{"empty", "", ":\n"},
		{"lines", "a\rb\nc\r\nd", ": a\n: b\n: c\n: d\n"},
		{"an injected event", "x\n\ndata: y\n\n", ": x\n: \n: data: y\n: \n: \n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(AppendComment([]byte("dst"), tc.text)); got != "dst"+tc.want {
				t.Errorf("got %q, want %q", got, "dst"+tc.want)
			}
		})
	}
}

func TestValid(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "tick": true, " a: b ": true, "✔": true,
		"a\nb": false, "a\r": false, "\x00": false,
	} {
		if got := Valid(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestAppendAllocs(t *testing.T) {
	e := Event{ID: []byte("12345"), HasID: true, Type: []byte("tick"), Data: []byte("one\ntwo"), HasData: true}
	var buf []byte
	if allocs := testing.AllocsPerRun(100, func() { buf = Append(buf[:0], &e) }); allocs != 0 {
		t.Errorf("got %v allocations, want 0", allocs)
	}
}
