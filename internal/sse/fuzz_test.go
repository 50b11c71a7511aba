package sse

import (
	"errors"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// referenceDecode reads the standard to the letter and knows nothing of speed or
// chunks: the whole stream is decoded, then cut into lines, then interpreted.
func referenceDecode(stream string) (events []string) {
	text := referenceUTF8(strings.TrimPrefix(stream, "\xEF\xBB\xBF"))
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	lines := strings.Split(text, "\n")
	lines = lines[:len(lines)-1] // the last has no end

	var e Event
	var data, eventType string
	for _, line := range lines {
		if line == "" {
			if e.HasData {
				e.Data = []byte(strings.TrimSuffix(data, "\n"))
				e.Type = []byte(eventType)
			}
			if e.HasID || e.HasData || e.HasRetry {
				events = append(events, format(&e))
			}
			e, data, eventType = Event{}, "", ""
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			eventType = value
		case "data":
			data += value + "\n"
			e.HasData = true
		case "id":
			if !strings.Contains(value, "\x00") {
				e.ID, e.HasID = []byte(value), true
			}
		case "retry":
			if value != "" && strings.Trim(value, "0123456789") == "" {
				ms, _ := new(big.Int).SetString(value, 10)
				longest := int64(math.MaxInt64 / time.Millisecond)
				if ms.Cmp(big.NewInt(longest)) > 0 {
					ms.SetInt64(longest)
				}
				e.Retry, e.HasRetry = time.Duration(ms.Int64())*time.Millisecond, true
			}
		}
	}
	return events
}

// referenceUTF8 is the state machine of the "UTF-8 decoder" in the Encoding
// standard, with its names.
func referenceUTF8(stream string) string {
	var out strings.Builder
	var codePoint rune
	bytesSeen, bytesNeeded := 0, 0
	lower, upper := byte(0x80), byte(0xBF)
	for i := 0; i < len(stream); i++ {
		b := stream[i]
		if bytesNeeded == 0 {
			switch {
			case b <= 0x7F:
				out.WriteByte(b)
			case b >= 0xC2 && b <= 0xDF:
				bytesNeeded, codePoint = 1, rune(b&0x1F)
			case b >= 0xE0 && b <= 0xEF:
				if b == 0xE0 {
					lower = 0xA0
				}
				if b == 0xED {
					upper = 0x9F
				}
				bytesNeeded, codePoint = 2, rune(b&0xF)
			case b >= 0xF0 && b <= 0xF4:
				if b == 0xF0 {
					lower = 0x90
				}
				if b == 0xF4 {
					upper = 0x8F
				}
				bytesNeeded, codePoint = 3, rune(b&0x7)
			default:
				out.WriteRune('\uFFFD')
			}
			continue
		}
		if b < lower || b > upper {
			codePoint, bytesNeeded, bytesSeen = 0, 0, 0
			lower, upper = 0x80, 0xBF
			out.WriteRune('\uFFFD')
			i-- // restore the byte
			continue
		}
		lower, upper = 0x80, 0xBF
		codePoint = codePoint<<6 | rune(b&0x3F)
		bytesSeen++
		if bytesSeen == bytesNeeded {
			out.WriteRune(codePoint)
			codePoint, bytesNeeded, bytesSeen = 0, 0, 0
		}
	}
	if bytesNeeded > 0 {
		out.WriteRune('\uFFFD')
	}
	return out.String()
}

// split cuts stream at the distances that cuts gives, over and over.
func split(stream string, cuts []byte) (chunks []string) {
	for i := 0; stream != "" && len(cuts) > 0; i++ {
		n := min(int(cuts[i%len(cuts)]), len(stream))
		chunks = append(chunks, stream[:n])
		stream = stream[n:]
		if n == 0 && i > 1000 {
			break // nothing but zeros
		}
	}
	return append(chunks, stream)
}

// seeds has a stream for each of the rules, and splits of all sorts.
func seeds(f *testing.F) {
	for _, stream := range []string{
		"data: 0\n\nevent: done\ndata: ✔\n\n",
		"id: 1337\nevent: tick\nretry: 50\ndata: 1337\n\n",
		"event: stock\ndata: YHOO\ndata: +2\ndata: 10\n\n",
		"\uFEFFdata: bomful 1\n\n\uFEFFdata: bomful 2\n\ndata: bomless 3\n\n",
		"\xEF\xBBdata: half a BOM\ndata: 2\n\n",
		"data: dog\rdata: bark\r\rdata: cat\r\r\n",
		"data: sheep\r\ndata: bleat\r\n\r\ndata: pig\r\n\r\n",
		"data: A\r\ndata: B\r\ndata: C\r\n\r\n\n\r",
		"\n\n\n\nid: 1\ndata: 我現在都看實況不玩遊戲 🥌\n\n",
		"data:1\r\r:\x00\n:\r\ndata:2\n\n:xxxxx\rdata:3\n\n:data:fail\r:xxxxx\ndata:4\n\n",
		": ♥\n\ndata: A\n\n:\n\n",
		"event:\ndata: Hello 1\n\nevent:\n\nevent: a\nid\n\n",
		"id:2\nretry:\ndata:🧹\n\nretry:1000\nretry:2000x\n\nretry: 99999999999999999999\n\n",
		"data:\n\ndata\ndata\n\ndata:test\n\n",
		"data:abc\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacomment\ndata:123\n\n",
		"id: 123\nid: bad\x00id\ndata: hello\n\nid: \x00\n\n",
		"id: \xFF\nevent: \xC0\xAF\ndata: \xE2\x82\ndata: \xED\xA0\x80\xF0\x80\x80\ndata: \xF4\x90\x80\x80\n\n",
		"retry: 1\n\nid: 1\n\ndata: unfinished\n",
		`{"error": "Internal Server Error"}`,
	} {
		for _, cuts := range []string{"", "\x01", "\x02\x01\x00", "\x05\x20"} {
			f.Add(stream, []byte(cuts), uint16(len(stream)))
			f.Add(stream, []byte(cuts), uint16(12))
		}
	}
}

// FuzzDecode checks that a stream gives what the standard says, and the same for
// any split and under any limit.
func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, stream string, cuts []byte, limit uint16) {
		chunks := split(stream, cuts)

		got, err := decode(3*len(stream), chunks...)
		if err != nil {
			t.Errorf("%q: got error %v", chunks, err)
		}
		if want := referenceDecode(stream); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", chunks, got, want)
		}

		wantLimited, wantErr := decode(int(limit), stream)
		if !slices.Equal(wantLimited, got[:min(len(wantLimited), len(got))]) {
			t.Errorf("%q: got %q under a limit, %q without", stream, wantLimited, got)
		}
		var gotLimited []string
		var gotErr error
		d := NewDecoder(int(limit), func(e *Event) { gotLimited = append(gotLimited, format(e)) })
		for _, chunk := range chunks {
			gotErr = write(d, chunk)
			if kept, bound := keptMemory(d), 8*int(limit)+256; kept > bound {
				t.Errorf("got %d bytes kept, want at most %d", kept, bound)
			}
		}
		if !slices.Equal(gotLimited, wantLimited) || !errors.Is(gotErr, wantErr) {
			t.Errorf("%q: got %q, %v, want %q, %v", chunks, gotLimited, gotErr, wantLimited, wantErr)
		}
	})
}

// FuzzRoundTrip checks that what a decoder has emitted is read again as it was,
// once encoded, and that a comment, whatever its text, adds nothing.
func FuzzRoundTrip(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, stream string, cuts []byte, _ uint16) {
		var want []string
		wire := AppendComment(nil, stream)
		d := NewDecoder(3*len(stream), func(e *Event) {
			want = append(want, format(e))
			wire = Append(wire, e)
		})
		if err := write(d, split(stream, cuts)...); err != nil {
			t.Fatal(err)
		}
		got, err := decode(len(wire), string(wire))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", wire, got, err, want)
		}
	})
}
