# The audit's lines (audit_log_file) as events of the Open Cybersecurity Schema Framework, class "API Activity", for collectors that
# want that form:
#
#   jq -c -f ocsf.jq audit.json
#   tail -F audit.json | jq -c --unbuffered -f ocsf.jq
#
# Source: OCSF 1.4.0, API Activity (class 6003, category 6 "Application Activity").

# What a method does: 1 create, 3 update, 4 delete, 99 something else.
def activity:
  if test("^(Batch)?(Create|New|Mint|Import|Append|Publish)|^(AttestAgent|Prepare)") then 1
  elif test("^(Batch)?(Update|Set)|^(Approve|Ban|Renew|Activate|Taint|Learn)") then 3
  elif test("^(Batch)?Delete|^(Revoke|Reset)") then 4
  else 99 end;

# "spiffe://td/x at 192.0.2.1:40", "192.0.2.1:40" or "local".
def endpoint:
  (split(" at ") | last) as $where
  | if $where == "local" then { name: "local" }
    else ($where | capture("^\\[?(?<ip>[^\\]]*)\\]?:(?<port>[0-9]+)$") // { ip: $where })
      | if .port then .port |= tonumber else . end
    end;

def actor:
  if .caller_uid != null then { user: { uid: (.caller_uid | tostring), type: "User", type_id: 1 } }
    + (if .caller_pid != null then { process: { pid: .caller_pid } } else {} end)
  elif (.caller // "" | startswith("spiffe://")) then
    { user: { uid: (.caller | split(" at ") | first), type: "System", type_id: 3 } }
  else { user: { uid: "unknown", type: "Unknown", type_id: 0 } } end;

def described:
  (.method | activity) as $activity
  | {
      category_uid: 6, category_name: "Application Activity",
      class_uid: 6003, class_name: "API Activity",
      activity_id: $activity, activity_name: .method,
      type_uid: (600300 + $activity),
      time: (.time | sub("\\.[0-9]+Z$"; "Z") | fromdateiso8601 * 1000),
      severity_id: (if .status == "success" then 1 else 3 end),
      status_id: (if .status == "success" then 1 else 2 end),
      status: (if .status == "success" then "Success" else "Failure" end),
      api: { operation: .method, service: { name: "ironroot-server" } },
      actor: actor,
      src_endpoint: (.caller // "local" | endpoint),
      resources: [{ name: .object }],
      metadata: { version: "1.4.0", product: { name: "ironroot-server", vendor_name: "Ironroot" } }
    }
  + (if .status == "success" then {} else { status_code: .status_code, status_detail: .status_message } end)
  + (if .device then { device: { uid: .device, type_id: 99 } } else {} end);

select(.type == "audit") | described
