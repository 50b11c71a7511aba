package terminal

import (
	"bytes"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                         "0ms",
		400 * time.Microsecond:    "0ms",
		1600 * time.Microsecond:   "2ms",
		999 * time.Millisecond:    "999ms",
		999600 * time.Microsecond: "1s",
		time.Second:               "1s",
		1500 * time.Millisecond:   "1.50s",
		12340 * time.Millisecond:  "12.34s",
		59999 * time.Millisecond:  "1m0s",
		5 * time.Minute:           "5m",
		10 * time.Minute:          "10m",
		62 * time.Second:          "1m2s",
		70 * time.Second:          "1m10s",
		time.Hour:                 "1h",
		70 * time.Minute:          "1h10m",
		49 * time.Hour:            "49h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}

// What comes over the network must not be able to move the cursor, change the
// title of the window, or turn text around.
func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain\ttext ✔":         "plain\ttext ✔",
		"\x1b[2J\x07\x00\r\n":   "␛[2J␇␀␍␊",
		"\u009b31m\x7f":         "\uFFFD31m␡",
		"a\u202eb\u2066c":       "a\uFFFDb\uFFFDc",
		"a\u200fb\u2028c\u061c": "a\uFFFDb\uFFFDc\uFFFD",
		"a\x9b31mb\x85c\xff":    "a\uFFFD31mb\uFFFDc\uFFFD",
		`{"json":"\u001b[2J"}`:  `{"json":"\u001b[2J"}`,
	} {
		if got := Clean(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"":               "",
		"12345":          "12345",
		"123456":         "12345…",
		" a\n\n b\x1b ":  "a b␛",
		"我現在都看實況":        "我現在都看…",
		"a b c d e f g ": "a b c…",
	} {
		if got := Clip(text, 5); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestPaletteFor(t *testing.T) {
	if got := PaletteFor(new(bytes.Buffer)).Red("x"); got != "x" {
		t.Errorf("a buffer is no terminal: got %q", got)
	}
	if got := Colours.Red("x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("got %q", got)
	}
	if got := Colours.Red(""); got != "" {
		t.Errorf("nothing has no colour: got %q", got)
	}
}
