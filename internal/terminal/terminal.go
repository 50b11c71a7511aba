// Package terminal is what the commands know of the terminal that they may be
// writing to: whether there is one, its colours, and what must not reach it.
package terminal

import (
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A Palette colours text, or leaves it as it is if it is the zero value.
type Palette struct {
	on bool
}

// PaletteFor returns the colours for w: none unless it is a terminal that has
// some, and none if NO_COLOR is set (see no-color.org).
func PaletteFor(w io.Writer) Palette {
	return Palette{on: Is(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Colours is a palette that always colours.
var Colours = Palette{on: true}

func (p Palette) paint(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// The colours, named for what they look like.

func (p Palette) Bold(text string) string   { return p.paint("1", text) }
func (p Palette) Dim(text string) string    { return p.paint("2", text) }
func (p Palette) Red(text string) string    { return p.paint("31", text) }
func (p Palette) Green(text string) string  { return p.paint("32", text) }
func (p Palette) Yellow(text string) string { return p.paint("33", text) }
func (p Palette) Cyan(text string) string   { return p.paint("36", text) }

// Clean makes text that came over the network harmless to a terminal: a control
// character, which could move the cursor or worse, becomes a picture of itself, and so
// does a byte that is no text, which a terminal may take for one. Tabs stay.
func Clean(text string) string {
	text = strings.ToValidUTF8(text, string(utf8.RuneError))
	if strings.IndexFunc(text, isControl) < 0 {
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case !isControl(r):
			return r
		case r < ' ':
			return '\u2400' + r
		case r == 0x7f:
			return '\u2421'
		}
		return utf8.RuneError
	}, text)
}

// isControl includes what ends lines, and what turns the direction of text, by which one
// thing can be made to look like another.
func isControl(r rune) bool {
	return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 ||
		r == 0x061c || r == 0x200e || r == 0x200f || // marks of direction
		r >= 0x2028 && r <= 0x202e || // separators of lines and paragraphs, embeddings and overrides
		r >= 0x2066 && r <= 0x2069 // isolates
}

// Clip returns at most n characters of text, on one line, and says by an
// ellipsis that there were more.
func Clip(text string, n int) string {
	text = Clean(strings.Join(strings.Fields(text), " "))
	for i := range text {
		if n == 0 {
			return text[:i] + "…"
		}
		n--
	}
	return text
}

// Width is how many columns text takes, roughly: one for each character.
func Width(text string) int {
	return utf8.RuneCountInString(text)
}

// Pad fills text up to width columns.
func Pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-Width(text)))
}

// Duration is d with three digits or so: as much as a person wants to know.
func Duration(d time.Duration) string {
	switch {
	case d < time.Millisecond/2:
		return "0ms"
	case d < time.Second-time.Millisecond/2:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		d = d.Round(10 * time.Millisecond)
		if d%time.Second == 0 {
			return d.String()
		}
		text := d.String() // "1.5s", "12.34s"
		if dot := strings.IndexByte(text, '.'); len(text)-dot == len(".5s") {
			text = text[:len(text)-1] + "0s"
		}
		return text
	case d < time.Hour:
		return trimZero(d.Round(time.Second).String(), "0s")
	}
	return trimZero(trimZero(d.Round(time.Minute).String(), "0s"), "0m")
}

// trimZero cuts an empty last unit, as the 0s of 5m0s.
func trimZero(text, zero string) string {
	rest, ok := strings.CutSuffix(text, zero)
	if !ok || rest == "" || rest[len(rest)-1] <= '9' { // the 0 is the end of a 10
		return text
	}
	return rest
}
