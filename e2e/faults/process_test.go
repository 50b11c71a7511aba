package faults

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process is a child with a log.
type process struct {
	name   string
	cmd    *exec.Cmd
	stuck  func() // is called when it takes long to end
	exited chan struct{}
}

func start(t *testing.T, name, log string, cmd *exec.Cmd) *process {
	t.Helper()
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	// Pdeathsig, because no cleanup runs when the test binary itself is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	p := &process{name: name, cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// terminate asks the process to end, and returns how long that took.
func (p *process) terminate(within time.Duration) (time.Duration, bool) {
	began := time.Now()
	p.signal(syscall.SIGTERM)
	slow := time.After(exitTime)
	for over := time.After(within); ; {
		select {
		case <-p.exited:
			return time.Since(began), true
		case <-slow:
			p.stuck()
		case <-over:
			p.kill()
			return time.Since(began), false
		}
	}
}

// status returns a figure of /proc/<pid>/status, in KiB where it is one of memory.
func (p *process) status(name string) int {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.SplitSeq(string(content), "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return -1
}

func (p *process) files() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	return len(entries)
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, within time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still: %v", within, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// freePort returns a port below the range that the kernel takes for outgoing
// connections, so that nothing takes it while what listens there is restarted.
func freePort(t *testing.T) int {
	t.Helper()
	first := 28100 + os.Getpid()%3000
	for port := first; port < first+500; port++ {
		if given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		l.Close()
		given[port] = true
		return port
	}
	t.Fatal("no free port")
	return 0
}

var given = make(map[int]bool)
