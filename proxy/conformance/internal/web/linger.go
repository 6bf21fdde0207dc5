package web

import (
	"io"
	"net"
	"time"
)

// lingering is a listener whose connections are closed in stages (RFC 9112 §9.6): a close while bytes lie unread resets
// the connection, and h2spec counts only a regular end as one.
type lingering struct {
	net.Listener
}

func (listener lingering) Accept() (net.Conn, error) {
	connection, err := listener.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return staged{connection.(*net.TCPConn)}, nil
}

type staged struct {
	*net.TCPConn
}

func (connection staged) Close() error {
	if connection.CloseWrite() == nil {
		_ = connection.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, connection.TCPConn)
	}
	return connection.TCPConn.Close()
}
