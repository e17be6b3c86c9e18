package runv1

import (
	"giggle/fault"
	"giggle/run"
)

// probeFromWire reads a probe; a nil one stays nil.
func probeFromWire(w *probe, path string) (*run.Probe, error) {
	if w == nil {
		return nil, nil
	}
	p := &run.Probe{
		InitialDelay:     int(w.InitialDelaySeconds),
		Timeout:          int(w.TimeoutSeconds),
		Period:           int(w.PeriodSeconds),
		FailureThreshold: int(w.FailureThreshold),
		SuccessThreshold: int(w.SuccessThreshold),
	}
	ways := 0
	for _, action := range []*portAction{w.TCPSocket, w.HTTPGet, w.GRPC} {
		if action != nil {
			ways++
		}
	}
	if ways > 1 {
		return nil, fault.Invalid(path, "httpGet, tcpSocket and grpc exclude each other")
	}
	switch {
	case w.TCPSocket != nil:
		p.TCPPort = int(w.TCPSocket.Port)
	case w.HTTPGet != nil:
		p.HTTPPort, p.HTTPPath = int(w.HTTPGet.Port), w.HTTPGet.Path
		if p.HTTPPath == "" {
			p.HTTPPath = "/"
		}
		for _, h := range w.HTTPGet.HTTPHeaders {
			p.HTTPHeaders = append(p.HTTPHeaders, run.Header{Name: h.Name, Value: h.Value})
		}
	case w.GRPC != nil:
		p.GRPC, p.GRPCPort, p.GRPCService = true, int(w.GRPC.Port), w.GRPC.Service
	}
	return p, nil
}

// probeToWire writes a probe; a nil one stays nil.
func probeToWire(p *run.Probe) *probe {
	if p == nil {
		return nil
	}
	w := &probe{
		InitialDelaySeconds: flexInt(p.InitialDelay),
		TimeoutSeconds:      flexInt(p.Timeout),
		PeriodSeconds:       flexInt(p.Period),
		FailureThreshold:    flexInt(p.FailureThreshold),
		SuccessThreshold:    flexInt(p.SuccessThreshold),
	}
	switch {
	case p.HTTPPath != "":
		w.HTTPGet = &portAction{Port: flexInt(p.HTTPPort), Path: p.HTTPPath}
		for _, h := range p.HTTPHeaders {
			w.HTTPGet.HTTPHeaders = append(w.HTTPGet.HTTPHeaders, header{h.Name, h.Value})
		}
	case p.GRPC:
		w.GRPC = &portAction{Port: flexInt(p.GRPCPort), Service: p.GRPCService}
	case p.TCPPort != 0:
		w.TCPSocket = &portAction{Port: flexInt(p.TCPPort)}
	}
	return w
}

// withProbes adds the fields of a container's three probes. Which of them may have which is package run's rule.
func withProbes(fields map[string]disposition) map[string]disposition {
	for _, name := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
		at := "spec.template.spec.containers[]." + name
		fields[at] = honoured
		for _, field := range []string{
			"initialDelaySeconds", "timeoutSeconds", "periodSeconds", "failureThreshold", "successThreshold",
			"tcpSocket", "tcpSocket.port",
			"httpGet", "httpGet.port", "httpGet.path", "httpGet.httpHeaders", "httpGet.httpHeaders[].name",
			"httpGet.httpHeaders[].value",
			"grpc", "grpc.port", "grpc.service",
		} {
			fields[at+"."+field] = honoured
		}
		fields[at+".tcpSocket.host"], fields[at+".httpGet.host"], fields[at+
			".httpGet.scheme"] = refused, refused, output
	}
	return fields
}
