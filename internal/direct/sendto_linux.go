//go:build linux && !386

package direct

import "syscall"

const sysSendto = syscall.SYS_SENDTO
