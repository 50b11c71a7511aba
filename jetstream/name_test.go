package jetstream

import (
	"strings"
	"testing"
)

func TestTopicNames(t *testing.T) {
	t.Parallel()
	a := secret("a secret of some length")
	name := a.topicName("definition", "key")
	if again := a.topicName("definition", "key"); again != name {
		t.Errorf("%q and %q for the same topic", name, again)
	}
	if len(name) != 26 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Errorf("%q cannot stand in a subject", name)
	}
	others := map[string]string{
		"another secret":              secret("another").topicName("definition", "key"),
		"another definition":          a.topicName("definition2", "key"),
		"another key":                 a.topicName("definition", "key2"),
		"the parts divided elsewhere": a.topicName("definitionk", "ey"),
		"the fingerprint":             a.fingerprint(),
	}
	seen := map[string]string{name: "the topic"}
	for what, other := range others {
		if of, is := seen[other]; is {
			t.Errorf("%s and %s have one name", what, of)
		}
		seen[other] = what
	}
}

func TestStreamNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"SSE_FANOUT": true, "a-1": true, "": false, "a.b": false, "a b": false, "a*": false, "a>": false, "ä": false,
		strings.Repeat("a", 201): false,
	} {
		if got := isStreamName(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
