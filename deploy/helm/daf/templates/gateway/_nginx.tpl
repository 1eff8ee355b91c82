{{- define "daf.nginx.calls" -}}
{{ ternary "8443 ssl" "8080" .Values.gateway.tls.enabled }} http2 so_keepalive=60s:30s:4
{{- end -}}

{{/* The gateway: which service answers a call is in its path. See docs/decisions/0025-a-gateway-of-nginx.md. */}}
{{- define "daf.nginx" -}}
{{- $tls := .Values.gateway.tls.enabled -}}
{{- $fullname := include "daf.fullname" . -}}
daemon off;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
worker_processes 2;
worker_shutdown_timeout 25s; # watches end then; clients take them up elsewhere

events {
    worker_connections 8192;
}

http {
    # Written before nginx starts: `resolver`, and $domain, the domain of this namespace's Services.
    include /run/daf/resolver.conf;

    server_tokens off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;

    log_format calls escape=json '{"time":"$time_iso8601","call":"$uri","client":"$remote_addr",'
        '"status":"$grpc_status","http":$status,"seconds":$request_time,"request_id":"$http_x_request_id"}';
    map $sent_trailer_grpc_status $grpc_status {
        "" $sent_http_grpc_status;
        default $sent_trailer_grpc_status;
    }
    access_log /dev/stdout calls;

    # Workers reach their services from within only, and so not here. The first that matches counts.
    map $uri $service {
        ~^/daf\.[a-z]+\.v[0-9]+\.[A-Za-z]*WorkerService/ "";
        {{- if .Values.singleNode.enabled }}
        ~^/daf\.[a-z]+\.v[0-9]+\. {{ $fullname }}-standalone;
        ~^/grpc\.health\.v1\.Health/ {{ $fullname }}-standalone;
        {{- else }}
        {{- range include "daf.services" . | splitList " " }}
        ~^/daf\.{{ . }}\.v[0-9]+\. {{ $fullname }}-{{ . }};
        {{- end }}
        ~^/grpc\.health\.v1\.Health/ {{ $fullname }}-statistics;
        {{- end }}
        default "";
    }

    server {
        listen {{ include "daf.nginx.calls" . }};
        include /run/daf/calls*.conf; # the same of IPv6, where that is
        {{- if $tls }}
        # Files named by a variable are read for every handshake: a certificate that is renewed needs no restart.
        ssl_certificate $certificates/tls.crt;
        ssl_certificate_key $certificates/tls.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        {{- end }}

        # A stream may be silent for a day; what is dead is found by keepalive. Sizes are limited by the services.
        client_max_body_size 0;
        client_body_timeout 1d;
        send_timeout 1d;
        keepalive_timeout 1h;
        # A connection's memory is freed with it, so it is given up after so many calls: what runs ends on it, and clients open
        # another. Calls that meet the end are sent again by every gRPC client, but not by one that has turned retries off.
        keepalive_requests 10000;
        http2_max_concurrent_streams 1024;
        http2_body_preread_size 512k;
        large_client_header_buffers 8 32k;

        grpc_connect_timeout 5s;
        grpc_read_timeout 1d;
        grpc_send_timeout 1d;
        grpc_socket_keepalive on;
        grpc_buffer_size 64k; # errors carry their details in the headers

        error_page 404 = @unimplemented;
        error_page 500 502 503 504 = @unavailable;

        location / {
            if ($service = "") {
                return 404;
            }
            grpc_pass grpc://$service.$domain:50051;
        }

        location @unimplemented {
            internal;
            default_type application/grpc;
            add_header grpc-status 12 always;
            add_header grpc-message "this installation has no such call" always;
            return 200;
        }

        location @unavailable {
            internal;
            default_type application/grpc;
            add_header grpc-status 14 always;
            add_header grpc-message "the service does not answer: it starts, or is down" always;
            return 200;
        }
    }
    {{- if $tls }}

    map $host $certificates {
        default /etc/daf/tls;
    }
    {{- end }}

    server {
        listen 8081;
        include /run/daf/health*.conf;
        access_log off;

        location = /healthz {
            return 200 "ok\n";
        }
    }
}
{{- end -}}
