package origins

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// The names of topics whose ids are no numbers.
const (
	Offsets   = "offsets"   // JSON of 1,260 bytes, as Wikimedia's
	Text      = "text"      // UTF-8 with quotes, more than 1 KiB, with a blank at the end
	Oversized = "oversized" // every fourth has more than MostAsked bytes
)

// MostAsked is the longest id, in bytes, that Caddy asks an origin with for a client.
const MostAsked = 4 << 10

// An idFrame is what the ids of a topic have around the number.
type idFrame struct{ head, tail string }

var (
	offsetsFrame   = offsets(1260)
	oversizedFrame = offsets(MostAsked + 200)
	briefFrame     = idFrame{offsetsFrame.head, "}]"}
	textFrame      = idFrame{`„Zeile“ "line" \ 行 `, strings.Repeat(` · naïve "日本語" 🦆`, 40) + " "}
)

// offsets returns a frame such that ids of six digits have as many bytes.
func offsets(size int) idFrame {
	f := idFrame{head: `[{"topic":"eqiad.mediawiki.recentchange","partition":0,"offset":`, tail: "}"}
	for i := 1; ; i++ {
		other := fmt.Sprintf(`,{"topic":"codfw.mediawiki.recentchange","partition":%d,"offset":-1}`, i)
		if room := size - 6 - len(f.head) - len(f.tail) - len("]"); room < len(other) {
			f.tail += strings.Repeat(" ", room) + "]"
			return f
		}
		f.tail += other
	}
}

func frameOf(topic string, n int) idFrame {
	switch path.Base(topic) {
	case Offsets:
		return offsetsFrame
	case Text:
		return textFrame
	case Oversized:
		if n%4 == 3 {
			return oversizedFrame
		}
		return briefFrame
	}
	return idFrame{}
}

// ID is that of event n of a topic.
func ID(topic string, n int) string {
	f := frameOf(topic, n)
	return f.head + strconv.Itoa(n) + f.tail
}

// Number returns which event of a topic an id is of. HTTP has taken away the blanks
// around it.
func Number(topic, id string) (int, error) {
	head := frameOf(topic, 0).head
	digits := strings.TrimPrefix(id, head)
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, err
	}
	if strings.Trim(ID(topic, n), " \t") != strings.Trim(id, " \t") {
		return 0, fmt.Errorf("%.100q is no id of %s", id, topic)
	}
	return n, nil
}
