package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRate(t *testing.T) {
	limits := Limits{Events: 1000, Bytes: 1 << 20, Age: time.Hour}
	rate := func(t *testing.T, topic *Topic, want float64) {
		t.Helper()
		if got := topic.Stats().Rate; got < want*.99 || got > want*1.01 {
			t.Errorf("%v events per second, want %v", got, want)
		}
	}
	publish := func(topic *Topic, n int, every time.Duration) {
		for range n {
			topic.Publish(plain("x"))
			time.Sleep(every)
		}
	}
	t.Run("of the last seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			topic := New(limits)
			rate(t, topic, 0)
			topic.Publish(plain("x"))
			rate(t, topic, 1)
			publish(topic, 49, 100*time.Millisecond)
			rate(t, topic, 50/4.9)
			publish(topic, 300, 100*time.Millisecond)
			rate(t, topic, 10)
			time.Sleep(5 * time.Second)
			rate(t, topic, 5)
			time.Sleep(5 * time.Second)
			rate(t, topic, 0)
		})
	})
	t.Run("beyond what the log holds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			topic := New(limits)
			publish(topic, 50_000, 100*time.Microsecond)
			rate(t, topic, 10_000)
		})
	})
	t.Run("with a log of a moment", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			topic := New(Limits{Events: 10, Bytes: 1 << 20, Age: time.Second})
			publish(topic, 1000, 10*time.Millisecond)
			rate(t, topic, 100)
			time.Sleep(time.Second)
			topic.Expire()
			rate(t, topic, 0)
		})
	})
}

func TestBatchTellsWhenItsFirstEntryCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := New(Limits{Events: 1000, Bytes: 1 << 20, Age: time.Hour})
		if since := topic.Read(0, nil).Since; !since.IsZero() {
			t.Errorf("a batch of nothing came at %v", since)
		}
		time.Sleep(time.Second)
		first := time.Now()
		topic.Publish(plain("a"))
		time.Sleep(time.Second)
		topic.Publish(plain("b"))
		for c, want := range []time.Time{first, first.Add(time.Second)} {
			if got := topic.Read(Cursor(c), nil).Since; !got.Equal(want) {
				t.Errorf("the batch at %d came at %v, want %v", c, got, want)
			}
		}
	})
}
