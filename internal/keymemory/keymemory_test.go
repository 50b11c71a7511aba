package keymemory

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Memory[string]
		for i := range maxKeys + 100 {
			key := strconv.Itoa(i)
			m.Remember(key, "known", time.Minute)
			if n := len(m.young) + len(m.old); n > maxKeys {
				t.Fatalf("%d keys are remembered, want at most %d", n, maxKeys)
			}
			if why := m.Recall(key); why != "known" {
				t.Fatalf("key %s is recalled as %q", key, why)
			}
		}
		time.Sleep(time.Minute + 1)
		if why := m.Recall(strconv.Itoa(maxKeys)); why != "" {
			t.Errorf("a key whose time is over is recalled as %q", why)
		}
	})
}
