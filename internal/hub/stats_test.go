package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRate(t *testing.T) {
	limits := Limits{Events: 1000, Bytes: 1 << 20, Age: time.Hour}
	rate := func(t *testing.T, log *Log, want float64) {
		t.Helper()
		if got := log.Stats().Rate; got < want*.99 || got > want*1.01 {
			t.Errorf("%v events per second, want %v", got, want)
		}
	}
	publish := func(log *Log, n int, every time.Duration) {
		for range n {
			log.Publish(plain("x"))
			time.Sleep(every)
		}
	}
	t.Run("of the last seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := New(limits)
			rate(t, log, 0)
			log.Publish(plain("x"))
			rate(t, log, 1)
			publish(log, 49, 100*time.Millisecond)
			rate(t, log, 50/4.9)
			publish(log, 300, 100*time.Millisecond)
			rate(t, log, 10)
			time.Sleep(5 * time.Second)
			rate(t, log, 5)
			time.Sleep(5 * time.Second)
			rate(t, log, 0)
		})
	})
	t.Run("beyond what the log holds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := New(limits)
			publish(log, 50_000, 100*time.Microsecond)
			rate(t, log, 10_000)
		})
	})
	t.Run("with a log of a moment", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := New(Limits{Events: 10, Bytes: 1 << 20, Age: time.Second})
			publish(log, 1000, 10*time.Millisecond)
			rate(t, log, 100)
			time.Sleep(time.Second)
			log.Expire()
			rate(t, log, 0)
		})
	})
}

func TestBatchTellsWhenItsFirstEntryCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := New(Limits{Events: 1000, Bytes: 1 << 20, Age: time.Hour})
		if since := log.Read(0, nil).Since; !since.IsZero() {
			t.Errorf("a batch of nothing came at %v", since)
		}
		time.Sleep(time.Second)
		first := time.Now()
		log.Publish(plain("a"))
		time.Sleep(time.Second)
		log.Publish(plain("b"))
		for c, want := range []time.Time{first, first.Add(time.Second)} {
			if got := log.Read(Cursor(c), nil).Since; !got.Equal(want) {
				t.Errorf("the batch at %d came at %v, want %v", c, got, want)
			}
		}
	})
}
