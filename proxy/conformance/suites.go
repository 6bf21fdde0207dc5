package main

import (
	"errors"
	"fmt"
	"strings"

	"ferrule/proxy/conformance/internal/h2spec"
	"ferrule/proxy/conformance/internal/interop"
	"ferrule/proxy/conformance/internal/report"
	"ferrule/proxy/conformance/internal/road"
	"ferrule/proxy/conformance/internal/web"
	"ferrule/proxy/conformance/internal/websocket"
)

// h2c is Kubernetes' standard name for HTTP/2 over cleartext by prior knowledge.
const h2c = "kubernetes.io/h2c"

// h2specSuite lets h2spec talk to the proxies; the server behind them only has to answer.
func h2specSuite(session *session) error {
	plans := []struct {
		plan    road.Plan
		carried map[string]string
	}{
		{road.Plan{Kind: road.Outbound}, road.Everywhere("http2")},
		{road.Plan{Kind: road.Outbound, AppProtocol: h2c}, road.Everywhere("http2")},
		{road.Plan{Kind: road.Inbound}, road.Everywhere("http2")},
		{road.Plan{Kind: road.Both, AppProtocol: h2c}, road.Everywhere("http2")},
		{road.Plan{Kind: road.Both, AppProtocol: "http"}, road.Crossing("http2", "http1")},
	}
	for _, each := range plans {
		// A server that also speaks HTTP/1 would greet the deliberately wrong preface, which is detected as no HTTP
		// at all, with a response of HTTP/1.
		server, err := web.Serve(web.Options{HTTP1: each.plan.AppProtocol == "http", HTTP2: each.plan.AppProtocol != "http", Linger: true})
		if err != nil {
			return err
		}
		each.plan.Server = server.Address
		row := row{"h2spec, strict", each.plan, func() road.Carried {
			return road.Carried{Protocols: each.carried, Opaque: 1, Requests: server.Served()}
		}}
		err = session.run(row, func(address string, add func(string, error)) {
			findings, err := h2spec.Run(session.ctx, session.tools.h2spec, address)
			if err != nil {
				add("h2spec", err)
			}
			if findings.Passed > 0 {
				session.report.Add(report.Result{Suite: row.suite, Road: row.through(), Count: findings.Passed})
			}
			for _, failure := range findings.Failures {
				if reason := accepted(each.plan, failure); reason != "" {
					session.report.Add(report.Result{Suite: row.suite, Road: row.through(), Case: failure.Case, Skipped: reason})
					continue
				}
				add(failure.Case, errors.New(failure.Why))
			}
			for _, name := range findings.Skipped {
				session.report.Add(report.Result{Suite: row.suite, Road: row.through(), Case: name, Skipped: "by h2spec itself"})
			}
		})
		server.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// accepted tells why a failure is none. On a port that declares HTTP/1, bytes that are no HTTP/2 preface are a malformed
// request of HTTP/1: the proxy answers them as such and closes. h2spec wants the close alone.
func accepted(plan road.Plan, failure h2spec.Failure) string {
	const wrongPreface = "http2 3.5/2 Sends invalid connection preface"
	answered := strings.Contains(failure.Why, "looked like an HTTP/1.1 header")
	if plan.AppProtocol == "http" && failure.Case == wrongPreface && answered {
		return "answered with a 400 of HTTP/1, which the port declares, and closed"
	}
	return ""
}

func grpcSuite(session *session) error {
	server, err := interop.StartServer(session.ctx, session.tools.server)
	if err != nil {
		return err
	}
	defer server.Stop()
	supplement, stop, err := interop.ServeSupplement()
	if err != nil {
		return err
	}
	defer stop()
	for _, plan := range []road.Plan{
		{Kind: road.Direct},
		{Kind: road.Outbound, AppProtocol: "grpc"},
		{Kind: road.Inbound},
		{Kind: road.Both},
	} {
		plan.Server = server.Address
		err := session.run(row{"gRPC interop", plan, carriesHTTP2(len(interop.Cases))}, func(address string, add func(string, error)) {
			for _, test := range interop.Cases {
				add(test.Name, interop.Run(session.ctx, session.tools.client, address, test))
			}
		})
		if err != nil {
			return err
		}
		plan.Server = supplement
		err = session.run(row{"gRPC, further cases", plan, carriesHTTP2(len(interop.Supplement))}, func(address string, add func(string, error)) {
			for _, test := range interop.Supplement {
				add(test.Name, test.Run(session.ctx, address))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func carriesHTTP2(requests int) func() road.Carried {
	return func() road.Carried {
		return road.Carried{Protocols: road.Everywhere("http2"), Requests: requests}
	}
}

func websocketSuite(session *session) error {
	server, err := web.Serve(web.Options{HTTP1: true})
	if err != nil {
		return err
	}
	defer server.Close()
	for _, plan := range []road.Plan{
		{Kind: road.Direct},
		{Kind: road.Outbound, AppProtocol: "kubernetes.io/ws"},
		{Kind: road.Both},
	} {
		plan.Server = server.Address
		before := server.Served()
		carried := func() road.Carried {
			return road.Carried{Protocols: road.Everywhere("http1"), Requests: server.Served() - before}
		}
		err := session.run(row{"WebSocket", plan, carried}, func(address string, add func(string, error)) {
			for _, test := range websocket.Cases {
				add(test.Name, test.Run(session.ctx, address))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func webSuite(session *session) error {
	for _, each := range []struct {
		client, endpoint int
		plans            []road.Plan
	}{
		{web.HTTP1, web.HTTP1, []road.Plan{
			{Kind: road.Direct},
			{Kind: road.Outbound, AppProtocol: "http"},
			{Kind: road.Outbound},
			{Kind: road.Both},
		}},
		{web.HTTP2, web.HTTP2, []road.Plan{
			{Kind: road.Direct},
			{Kind: road.Outbound, AppProtocol: h2c},
			{Kind: road.Outbound},
			{Kind: road.Both},
		}},
		{web.HTTP1, web.HTTP2, []road.Plan{
			{Kind: road.Outbound, AppProtocol: h2c},
			{Kind: road.Both, AppProtocol: h2c},
		}},
		{web.HTTP2, web.HTTP1, []road.Plan{
			{Kind: road.Outbound, AppProtocol: "http"},
			{Kind: road.Both, AppProtocol: "http"},
		}},
	} {
		for _, plan := range each.plans {
			if err := webRow(session, each.client, each.endpoint, plan); err != nil {
				return err
			}
		}
	}
	return nil
}

func webRow(session *session, client, endpoint int, plan road.Plan) error {
	server, err := web.Serve(web.Options{HTTP1: endpoint == web.HTTP1, HTTP2: endpoint == web.HTTP2})
	if err != nil {
		return err
	}
	defer server.Close()
	plan.Server = server.Address
	names := map[int]string{web.HTTP1: "http1", web.HTTP2: "http2"}
	carried := func() road.Carried {
		return road.Carried{Protocols: road.Crossing(names[client], names[endpoint]), Requests: server.Served()}
	}
	suite := fmt.Sprintf("HTTP/%d to HTTP/%d", client, endpoint)
	return session.run(row{suite, plan, carried}, func(address string, add func(string, error)) {
		target := web.NewTarget(client, endpoint, address, server, session.tools.curl)
		defer target.Close()
		for _, test := range web.Cases() {
			if !test.Needs(target) {
				continue
			}
			err := test.Check(session.ctx, target)
			if err != nil && strings.Contains(err.Error(), "context deadline exceeded") {
				err = fmt.Errorf("not done in time: %w", err)
			}
			add(test.Name, err)
		}
	})
}
