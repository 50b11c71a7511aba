package sse

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// noLimit is a limit that tests with another subject do not come near.
const noLimit = 1 << 20

// decode writes chunks to a new decoder and returns the events, printed, and the
// error of the last Write.
func decode(limit int, chunks ...string) (events []string, err error) {
	d := NewDecoder(limit, func(e *Event) { events = append(events, format(e)) })
	err = write(d, chunks...)
	return events, err
}

// write overwrites each chunk once it is written, so that what a decoder should
// have copied and has not shows.
func write(d *Decoder, chunks ...string) (err error) {
	for _, chunk := range chunks {
		p := []byte(chunk)
		_, err = d.Write(p)
		for i := range p {
			p[i] = '!'
		}
	}
	return err
}

func format(e *Event) string {
	var fields []string
	if e.HasID {
		fields = append(fields, fmt.Sprintf("id=%q", e.ID))
	}
	if len(e.Type) > 0 {
		fields = append(fields, fmt.Sprintf("event=%q", e.Type))
	}
	if e.HasRetry {
		fields = append(fields, fmt.Sprintf("retry=%v", e.Retry))
	}
	if e.HasData {
		fields = append(fields, fmt.Sprintf("data=%q", e.Data))
	}
	return strings.Join(fields, " ")
}

func singleBytes(s string) []string {
	chunks := make([]string, len(s))
	for i := range chunks {
		chunks[i] = s[i : i+1]
	}
	return chunks
}

// checkDecode decodes stream whole, byte by byte, and split in two everywhere.
func checkDecode(t *testing.T, limit int, stream string, want []string, wantErr error) {
	t.Helper()
	check := func(how string, chunks ...string) {
		t.Helper()
		got, err := decode(limit, chunks...)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got events\n\t%s\nwant\n\t%s", how, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		if !errors.Is(err, wantErr) {
			t.Errorf("%s: got error %v, want %v", how, err, wantErr)
		}
	}
	check("whole", stream)
	check("byte by byte", singleBytes(stream)...)
	for i := range len(stream) {
		check(fmt.Sprintf("split at %d", i), stream[:i], stream[i:])
	}
}

func TestDecode(t *testing.T) {
	long := strings.Repeat("x", 2049)
	for _, tc := range []struct {
		name   string
		stream string
		want   []string
	}{
		{"nothing", "", nil},
		{"unnamed events", "data: 0\n\ndata: 1\n\n", []string{`data="0"`, `data="1"`}},
		{"all fields", "id: 7\nevent: tick\nretry: 50\ndata: x\n\n", []string{`id="7" event="tick" retry=50ms data="x"`}},
		{"fields in any order", "data: x\nretry: 50\nevent: tick\nid: 7\n\n", []string{`id="7" event="tick" retry=50ms data="x"`}},
		{"fields belong to their block only", "id: 7\nevent: tick\nretry: 50\ndata: x\n\ndata: y\n\n", []string{`id="7" event="tick" retry=50ms data="x"`, `data="y"`}},
		{"unfinished block at the end", "data: 1\n\ndata: 2\n", []string{`data="1"`}},
		{"unfinished line at the end", "data: 1\n\ndata: 2", []string{`data="1"`}},
		{"blank lines first", "\n\n\n\nid: 1\ndata: x\n\n", []string{`id="1" data="x"`}},

		{"BOM", "\uFEFFdata: 1\n\ndata: 2\n\n", []string{`data="1"`, `data="2"`}},
		{"BOM before a blank line", "\uFEFF\ndata: 1\n\n", []string{`data="1"`}},
		{"only the first BOM", "\uFEFFdata: 1\n\n\uFEFFdata: 2\n\ndata: 3\n\n", []string{`data="1"`, `data="3"`}},
		{"only one BOM", "\uFEFF\uFEFFdata: 1\ndata: 2\n\n", []string{`data="2"`}},
		{"BOM not at the beginning", "\n\uFEFFdata: 1\n\n", nil},
		{"BOM in data", "data: \uFEFF\n\n", []string{`data="\ufeff"`}},
		{"one byte of a BOM", "\xEFdata: 1\ndata: 2\n\n", []string{`data="2"`}},
		{"two bytes of a BOM", "\xEF\xBBdata: 1\ndata: 2\n\n", []string{`data="2"`}},
		{"two bytes of a BOM are not a blank line", "\xEF\xBB\r\ndata: 2\n\n", []string{`data="2"`}},

		{"LF", "data: cow\ndata: moo\n\ndata: horse\n\n", []string{`data="cow\nmoo"`, `data="horse"`}},
		{"CR", "data: dog\rdata: bark\r\rdata: cat\r\r", []string{`data="dog\nbark"`, `data="cat"`}},
		{"CRLF", "data: sheep\r\ndata: bleat\r\n\r\ndata: pig\r\n\r\n", []string{`data="sheep\nbleat"`, `data="pig"`}},
		{"LF CR is two line ends", "data: 1\n\rdata: 2\n\r", []string{`data="1"`, `data="2"`}},
		{"CR CRLF is two line ends", "data: 1\r\r\ndata: 2\r\r\n", []string{`data="1"`, `data="2"`}},
		{"CR LF LF is two line ends", "data: 1\r\n\ndata: 2\r\n\n", []string{`data="1"`, `data="2"`}},
		{"mixed line ends", "data: 1\r\ndata: 2\rdata: 3\ndata: 4\n\r\n", []string{`data="1\n2\n3\n4"`}},
		{"rare CR", "data: 1\ndata: 2\ndata: 3\rdata: 4\ndata: 5\n\n", []string{`data="1\n2\n3\n4\n5"`}},
		{"rare LF", "data: 1\rdata: 2\rdata: 3\ndata: 4\rdata: 5\r\r", []string{`data="1\n2\n3\n4\n5"`}},

		{"data lines", "data: YHOO\ndata: +2\ndata: 10\n\n", []string{`data="YHOO\n+2\n10"`}},
		{"data lines with others between", "data: 1\nid: 7\ndata: 2\nevent: e\n: c\ndata: 3\n\n", []string{`id="7" event="e" data="1\n2\n3"`}},
		{"empty data", "data:\n\ndata: \n\ndata\n\n", []string{`data=""`, `data=""`, `data=""`}},
		{"empty data lines", "data\ndata\n\ndata:\ndata: x\ndata\n\n", []string{`data="\n"`, `data="\nx\n"`}},
		{"one space is removed", "data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\ndata: a \n\n", []string{`data="a"`, `data="a"`, `data=" a"`, `data="\ta"`, `data="a "`}},
		{"colon in a value", "data: a: b\n\ndata::\n\n", []string{`data="a: b"`, `data=":"`}},
		{"NUL in data and type", "event: a\x00b\ndata: \x00\n\n", []string{`event="a\x00b" data="\x00"`}},

		{"comments", ":\n: hello\n:data: no\n\ndata: 1\n\n" + strings.Repeat(":", 300) + "\ndata: 2\n: Первый: 第二\n\n", []string{`data="1"`, `data="2"`}},
		{"comments with odd line ends", "data:1\r\r:\x00\n:\r\ndata:2\n\n:" + long + "\rdata:3\n\n:data:fail\r:" + long + "\ndata:4\n\n", []string{`data="1"`, `data="2"`, `data="3"`, `data="4"`}},
		{"heartbeats", ": ♥\n\ndata: A\n\n: ♥\n\n:\n\ndata: B\n\n", []string{`data="A"`, `data="B"`}},
		{"unknown fields", "data:abc\n data\ndata\nfoobar:xxx\njustsometext\n:comment\ndata:123\n\n", []string{`data="abc\n\n123"`}},
		{"field names are case-sensitive", "Data: 1\nDATA: 2\nId: 3\nEvent: 4\nRetry: 5\ndata: 6\n\n", []string{`data="6"`}},
		{"field names with a space", "data : 1\n data: 2\ndata: 3\n\n", []string{`data="3"`}},
		{"longer field names", "datax: 1\neventx: 2\nidx: 3\nretryx: 4\ndata: 5\n\n", []string{`data="5"`}},
		{"shorter field names", "dat: 1\neven: 2\ni: 3\nretr: 4\ndata: 5\n\n", []string{`data="5"`}},
		{"longer than all names", "retries\neventdata: 1\ndata: 2\n\n", []string{`data="2"`}},
		{"long unknown field", long + ": 1\ndata: 2\n\n", []string{`data="2"`}},

		{"last type wins", "event: a\nevent: b\ndata: x\n\n", []string{`event="b" data="x"`}},
		{"empty type", "event:\ndata: 1\n\nevent: a\nevent\ndata: 2\n\n", []string{`data="1"`, `data="2"`}},
		{"type alone", "event: a\n\ndata: 1\n\n", []string{`data="1"`}},
		{"type without data", "event: a\nid: 1\n\n", []string{`id="1"`}},

		{"last id wins", "id: 1\nid: 2\ndata: x\n\n", []string{`id="2" data="x"`}},
		{"empty id", "id: 1\nid:\ndata: x\n\nid\ndata: y\n\n", []string{`id="" data="x"`, `id="" data="y"`}},
		{"id alone", "id: 1\n\nid\n\n", []string{`id="1"`, `id=""`}},
		{"NUL in id", "id: 1\x00\ndata: x\n\n", []string{`data="x"`}},
		{"NUL in a later id", "id: 1\nid: 2\x002\ndata: x\n\n", []string{`id="1" data="x"`}},
		{"NUL in an id alone", "id: \x00\n\n", nil},

		{"retry alone", "retry: 1000\n\n", []string{`retry=1s`}},
		{"retry is used without waiting for data", "retry: 1\n\ndata: x\n\n", []string{`retry=1ms`, `data="x"`}},
		{"last retry wins", "retry: 1\nretry: 2\n\n", []string{`retry=2ms`}},
		{"empty retry", "id:2\nretry:\ndata:x\n\nretry\n\n", []string{`id="2" data="x"`}},
		{"zero retry", "retry: 0\n\n", []string{`retry=0s`}},
		{"leading zeros in retry", "retry: 0000000000000000000000000000010\n\n", []string{`retry=10ms`}},
		{"invalid retry", "retry:1000\nretry:2000x\ndata:x\n\n", []string{`retry=1s data="x"`}},
		{"retry is digits only", "retry: +1\nretry: -1\nretry:  1\nretry: 1 \nretry: 1.5\nretry: 1e3\nretry: ١\nretry: 1_0\n\n", nil},
		{"huge retry", "retry: 9223372036854\n\nretry: 9223372036855\n\nretry: 99999999999999999999999999999999999999\n\n", []string{`retry=2562047h47m16.854s`, `retry=2562047h47m16.854s`, `retry=2562047h47m16.854s`}},

		{"multibyte", "id: 第\nevent: ✔\ndata: 我現在都看實況不玩遊戲\ndata: 🥌🧹 Ünïcödé\n\n", []string{`id="第" event="✔" data="我現在都看實況不玩遊戲\n🥌🧹 Ünïcödé"`}},
		{"invalid UTF-8: one for a truncated sequence", "data: \xE2\x82\n\ndata: \xE2\x82x\n\ndata: \xF0\x9F\x98|\xF0\x9F|\xF0|\xC3|\xF0\x90\x80|\xF4\x8F\xBF\n\n", []string{`data="�"`, `data="�x"`, `data="�|�|�|�|�|�"`}},
		{"invalid UTF-8: a new sequence begins", "data: \xE2\x82\xE2\x82\xAC\n\ndata: \xF0\x9F\xF0\x9F\x98\x80\n\n", []string{`data="�€"`, `data="�😀"`}},
		{"invalid UTF-8: overlong", "data: \xC0\xAF|\xC1\xBF|\xE0\x80\x80|\xE0\x9F\xBF|\xF0\x80\x80|\xF0\x8F\xBF\xBF\n\n", []string{`data="��|��|���|���|���|����"`}},
		{"invalid UTF-8: surrogates", "data: \xED\xA0\x80|\xED\xBF\xBF|\xED\x9F\xBF\n\n", []string{`data="���|���|` + `\ud7ff"`}},
		{"invalid UTF-8: beyond Unicode", "data: \xF4\x8F\xBF\xBF|\xF4\x90\x80\x80|\xF5\x80\x80\x80|\xFF\xFE\n\n", []string{`data="\U0010ffff|����|����|��"`}},
		{"invalid UTF-8: lone continuation", "data: \x80\xBF\n\ndata:\x80\n\n", []string{`data="��"`, `data="�"`}},
		{"invalid UTF-8 in all fields", "id: \xFF\nevent: \xFF\xFF\ndata: a\ndata: \xFF\ndata: b\n\n", []string{`id="�" event="��" data="a\n�\nb"`}},
		{"invalid UTF-8, then valid", "id: \xFF\nid: 2\nevent: \xFF\nevent: e\ndata: \xFF\ndata: b\n\n", []string{`id="2" event="e" data="�\nb"`}},
		{"invalid UTF-8 in an id with NUL", "id: 1\nid: \xFF\x00\ndata: x\n\n", []string{`id="1" data="x"`}},
		{"invalid UTF-8 in names and comments", "data\xFF: 1\n\xFFdata: 2\n: \xFF\ndata: 3\n\n", []string{`data="3"`}},
		{"U+FFFD itself", "data: \uFFFD\n\n", []string{`data="�"`}},

		{"not an event stream", `{"error": "Internal Server Error"}` + "\n\n<html>\n\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkDecode(t, noLimit, tc.stream, tc.want, nil)
		})
	}
}

func TestDecodeLimit(t *testing.T) {
	const limit = 16
	for _, tc := range []struct {
		name   string
		stream string
		want   []string
		err    error
	}{
		{"longest line", "data: 0123456789\n\n", []string{`data="0123456789"`}, nil},
		{"line too long", "data: 0123456789a\n\n", nil, ErrEventTooLarge},
		{"line too long, without an end", "data: 0123456789a", nil, ErrEventTooLarge},
		{"comment too long", ": 0123456789abcde\ndata: 1\n\n", nil, ErrEventTooLarge},
		{"unknown field too long", "unknown: 12345678\ndata: 1\n\n", nil, ErrEventTooLarge},
		{"events before it", "data: 1\n\nid: 2\n\ndata: 0123456789a\n\ndata: 3\n\n", []string{`data="1"`, `id="2"`}, ErrEventTooLarge},
		{"a BOM does not count", "\uFEFFdata: 0123456789\n\n", []string{`data="0123456789"`}, nil},
		{"half a BOM counts", "\xEF\xBB3456789abcdefgh\ndata: 1\n\n", nil, ErrEventTooLarge},
		{"longest data", "data:1234567\ndata:89abcdef\n\n", []string{`data="1234567\n89abcdef"`}, nil},
		{"data too long", "data:12345678\ndata:89abcdef\n\n", nil, ErrEventTooLarge},
		{"endless empty data", strings.Repeat("data\n", 18), nil, ErrEventTooLarge},
		{"sum too long", "data:12345678\nid:1234\nevent:12345\n\n", nil, ErrEventTooLarge},
		{"longest sum", "data:12345678\nid:1234\nevent:1234\n\n", []string{`id="1234" event="1234" data="12345678"`}, nil},
		{"each event counts for itself", strings.Repeat("data:12345678\n\n", 3), slices.Repeat([]string{`data="12345678"`}, 3), nil},
		{"a later id replaces the one before", strings.Repeat("id:123456789\n", 10) + "\n", []string{`id="123456789"`}, nil},
		{"comments without end", strings.Repeat(": comment\n", 20) + "data: 1\n\n", []string{`data="1"`}, nil},
		{"comments do not count", "data:12345678\n" + strings.Repeat(": comment\n", 5) + "data:1234567\n\n", []string{`data="12345678\n1234567"`}, nil},
		{"replaced text fits", "data:\xFF\xFF\xFF\xFF\xFF\n\n", []string{`data="�����"`}, nil},
		{"replaced text too long", "data:\xFF\xFF\xFF\xFF\xFF\xFF\n\n", nil, ErrEventTooLarge},
		{"replaced id too long", "data:x\nid:\xFF\xFF\xFF\xFF\xFF\xFF\n\n", nil, ErrEventTooLarge},
		{"replaced second line too long", "data:12345678\ndata:\xFF\xFF\xFF\n\n", nil, ErrEventTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkDecode(t, limit, tc.stream, tc.want, tc.err)
		})
	}
}

func TestDecodeLimitIsForEver(t *testing.T) {
	var events int
	d := NewDecoder(8, func(*Event) { events++ })
	n, err := d.Write([]byte("data: 1\n\ndata: 123\n\n"))
	if n != 9 || !errors.Is(err, ErrEventTooLarge) {
		t.Errorf("got %d, %v, want 9, %v", n, err, ErrEventTooLarge)
	}
	for range 2 {
		if n, err := d.Write([]byte("\n\ndata: 2\n\n")); n != 0 || !errors.Is(err, ErrEventTooLarge) {
			t.Errorf("after it: got %d, %v, want 0, %v", n, err, ErrEventTooLarge)
		}
	}
	d.Reset()
	if n, err := d.Write([]byte("data: 2\n\n")); n != 9 || err != nil {
		t.Errorf("after Reset: got %d, %v, want 9, nil", n, err)
	}
	if events != 2 {
		t.Errorf("got %d events, want 2", events)
	}
}

// An event that is held back until the byte after its CR would come as late as
// the next event.
func TestDecodeCREndsALineAtOnce(t *testing.T) {
	var events []string
	d := NewDecoder(noLimit, func(e *Event) { events = append(events, format(e)) })
	for _, step := range []struct {
		chunk string
		want  []string
	}{
		{"data: 1\r\r", []string{`data="1"`}},
		{"\n", nil},
		{"data: 2\r\n\r", []string{`data="2"`}},
		{"\ndata: 3\r", nil},
		{"\r", []string{`data="3"`}},
		{"", nil},
		{"\ndata: 4", nil},
		{"\n\ndata: 5\n\n", []string{`data="4"`, `data="5"`}},
	} {
		events = nil
		if err := write(d, step.chunk); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(events, step.want) {
			t.Errorf("after %q: got %q, want %q", step.chunk, events, step.want)
		}
	}
}

func TestDecodeReset(t *testing.T) {
	for _, before := range []string{
		"", "\xEF", "\xEF\xBB", "x", "dat", "data: 1", "data: 1\n", "data: 1\nid: 2\nevent: 3\nretry: 4\n", "data: 1\r", ": c", "unknown",
	} {
		var events []string
		d := NewDecoder(noLimit, func(e *Event) { events = append(events, format(e)) })
		if err := write(d, before); err != nil {
			t.Fatal(err)
		}
		d.Reset()
		if err := write(d, "\uFEFF\ndata: new\n\n"); err != nil {
			t.Fatal(err)
		}
		if want := []string{`data="new"`}; !slices.Equal(events, want) {
			t.Errorf("after %q: got %q, want %q", before, events, want)
		}
	}
}

func TestDecodeHugeEvent(t *testing.T) {
	line := strings.Repeat("0123456789abcdé…", 100)
	var stream, data strings.Builder
	for data.Len() < 10<<20 {
		stream.WriteString("data: " + line + "\n")
		data.WriteString(line + "\n")
	}
	stream.WriteString("\n: the end\n\n")
	want := strings.TrimSuffix(data.String(), "\n")

	for _, size := range []int{997, 32 << 10, stream.Len()} {
		var got []string
		d := NewDecoder(16<<20, func(e *Event) { got = append(got, string(e.Data)) })
		for rest := stream.String(); rest != ""; {
			n := min(size, len(rest))
			if err := write(d, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("in writes of %d bytes: got %d events, not the one of %d bytes", size, len(got), len(want))
		}
		if kept := keptMemory(d); kept > 4*maxIdleBuffer {
			t.Errorf("in writes of %d bytes: %d bytes are kept after it", size, kept)
		}
	}
}

func keptMemory(d *Decoder) int {
	return cap(d.line) + cap(d.id.buf) + cap(d.typ.buf) + cap(d.data.buf)
}

func TestDecodeGivesMemoryBack(t *testing.T) {
	huge := strings.Repeat("x", noLimit/4)
	for _, tc := range []struct{ name, stream string }{
		{"event", "id: " + huge + "\nevent: " + huge + "\ndata: " + huge + "\n\n"},
		{"block without an event", "event: " + huge + "\n\n"},
		{"limit passed", "data: " + strings.Repeat(huge, 5)},
		{"limit passed by small lines", strings.Repeat("data: x\n", noLimit/2) + "\n"},
	} {
		d := NewDecoder(noLimit, func(*Event) {})
		for rest := tc.stream; rest != ""; {
			n := min(1000, len(rest))
			_ = write(d, rest[:n]) // may well pass the limit
			rest = rest[n:]
		}
		if kept := keptMemory(d); kept != 0 {
			t.Errorf("%s: got %d bytes of buffers after it, want 0", tc.name, kept)
		}
	}
}

// What grows without an end leaves no more garbage behind than it has bytes: a
// stream that is cut for it is made again and again.
func TestDecodeGrowsUpToTheLimit(t *testing.T) {
	const limit = 16 << 20
	for _, tc := range []struct{ name, first, more string }{
		{"line", "data: ", strings.Repeat("x", 32<<10)},
		{"data of many lines", "data: x\n", strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 32)},
		{"data of many lines that are no UTF-8", "data: x\n", strings.Repeat("data: "+strings.Repeat("x", 1000)+"\xFF\n", 32)},
	} {
		more := []byte(tc.more)
		d := NewDecoder(limit, func(*Event) {})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := d.Write([]byte(tc.first))
		for err == nil {
			_, err = d.Write(more)
		}
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrEventTooLarge) {
			t.Errorf("%s: got %v, want %v", tc.name, err, ErrEventTooLarge)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 2*limit+1<<20 {
			t.Errorf("%s: took %d KiB in all, want twice the limit of %d KiB at most", tc.name, took>>10, limit>>10)
		}
	}
}

func TestAppendValidStopsAtTheLimit(t *testing.T) {
	got := appendValid(nil, []byte(strings.Repeat("\xFF", 1000)), 10)
	if len(got) <= 10 || len(got) > 10+len("\uFFFD") {
		t.Errorf("got %d bytes, want the first length above 10", len(got))
	}
}

// What belongs to no event costs no memory, however it is split.
func TestDecodeKeepsNothingOfTheUnknown(t *testing.T) {
	for _, tc := range []struct{ name, line string }{
		{"comment", ":" + strings.Repeat("x", 100_000)},
		{"unknown field", "unknown: " + strings.Repeat("x", 100_000)},
		{"almost a field", "datax: " + strings.Repeat("x", 100_000)},
		{"no field name", strings.Repeat("x", 100_000)},
		{"two bytes of a BOM", "\xEF\xBB" + strings.Repeat("x", 100_000)},
	} {
		for _, size := range []int{1, 2, 5, 1000, 200_000} {
			d := NewDecoder(noLimit, func(*Event) {})
			for rest := tc.line; rest != ""; {
				n := min(size, len(rest))
				if err := write(d, rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if kept := keptMemory(d); kept > 16 {
				t.Errorf("%s in writes of %d bytes: got %d bytes of buffers, want a few", tc.name, size, kept)
			}
		}
	}
}

// An event within one Write, with one line of valid data, is not copied.
func TestDecodeAliasesTheInput(t *testing.T) {
	p := []byte("id: 1\nevent: e\ndata: text\n\n")
	var data []byte
	d := NewDecoder(noLimit, func(e *Event) { data = e.Data })
	if _, err := d.Write(p); err != nil {
		t.Fatal(err)
	}
	if want := p[len(p)-len("text\n\n"):]; &data[0] != &want[0] {
		t.Error("the data was copied")
	}
	if kept := keptMemory(d); kept != 0 {
		t.Errorf("got %d bytes of buffers, want 0", kept)
	}
}

func TestDecodeAllocs(t *testing.T) {
	event := func(size int) string {
		return "id: 12345\nevent: tick\ndata: " + strings.Repeat("x", size) + "\n\n"
	}
	for _, tc := range []struct {
		name   string
		stream string
		size   int // of a Write
	}{
		{"comments", ": comment\n: comment\n\n", 7},
		{"heartbeat", ":\n\n", 1},
		{"unknown fields", "unknown: field\nanother\n\n", 5},
		{"id and retry", "id: 1\nretry: 1\n\n", 4},
		{"events", event(200), 1000},
		{"events in parts", event(200), 50},
		{"events byte by byte", event(200), 1},
		{"data lines", strings.Repeat("data: 0123456789\n", 20) + "\n", 1000},
		{"invalid UTF-8", "id: \xFF\ndata: \xFF\ndata: \xFF\n\n", 1000},
		{"64 KiB in parts", event(64 << 10), 32 << 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewDecoder(noLimit, func(*Event) {})
			stream := []byte(tc.stream)
			allocs := testing.AllocsPerRun(100, func() {
				for rest := stream; len(rest) > 0; {
					n := min(tc.size, len(rest))
					if _, err := d.Write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
			})
			if allocs != 0 {
				t.Errorf("got %v allocations, want 0", allocs)
			}
		})
	}
}

// A search for the rare kind of line end must not cross the whole of a Write at
// each line, nor a long line be searched again at each of many small Writes. The
// bound is far from what it takes, and from the minutes that it would.
func TestDecodeIsLinear(t *testing.T) {
	const size = 2 << 20
	d := NewDecoder(2*size, func(*Event) {})
	start := time.Now()
	for _, end := range []string{"\n", "\r", "\r\n"} {
		if _, err := d.Write([]byte(strings.Repeat(end, size))); err != nil {
			t.Fatal(err)
		}
	}
	for part := []byte("data: " + strings.Repeat("x", 10)); d.lineLen < size; {
		if _, err := d.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}
