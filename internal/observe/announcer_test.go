package observe

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// The end of a configuration waits for a handler of an event that takes its time,
// and not for ever.
func TestEndOfAnAnnouncerWaitsForItsHandler(t *testing.T) {
	for _, tc := range []struct{ handling, wait time.Duration }{
		{time.Second, time.Second},
		{time.Hour, announcerGrace},
	} {
		t.Run(tc.handling.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.WarnLevel)
				a := &Announcer{logger: zap.New(core)}
				a.running.Go(func() { time.Sleep(tc.handling) })
				began := time.Now()
				a.Close()
				if took := time.Since(began); took != tc.wait {
					t.Errorf("it took %v, want %v", took, tc.wait)
				}
				if left := logs.Len() > 0; left != (tc.handling > announcerGrace) {
					t.Errorf("the log tells of a handler that was left behind: %t", left)
				}
				time.Sleep(tc.handling)
			})
		})
	}
}
