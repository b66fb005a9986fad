"""A hundred schemas of the kind that real APIs have, in a shorthand: of GitHub, Stripe, Kubernetes and many others.

A line is a name and the fields of an object. A field is `name:type`; a `*` behind the name makes it optional, a `?`
behind the type nullable. Types: i n s b (integer, number, string, boolean), with a range as `i0..9` or `s1..20`; a
format by its name; `a|b` one of these texts; `=a` this text; `[type]` a list, with sizes as `[type]1..3`; `<type>` an
object of any keys; `{fields}` an object; `(type,type)` any of these; `/pattern/`; `^` the object itself again.
"""

import re
from typing import Any

__all__ = ["API_SCHEMAS"]

TEXT = r"""
github.user login:s id:i type:User|Bot|Organization site_admin:b name:s? company:s? email:email? followers:i0.. created_at:date-time
github.repo id:i name:s full_name:/^[\w.-]+\/[\w.-]+$/ private:b owner:{login:s id:i} description:s? fork:b size:i0.. topics:[s] visibility:public|private|internal license:{key:s name:s}?
github.issue number:i1.. title:s1..256 state:open|closed labels:[{name:s color:/^[0-9a-f]{6}$/}] assignee:{login:s}? comments:i0.. body:s? closed_at:date-time?
github.pull number:i1.. state:open|closed draft:b head:{ref:s sha:/^[0-9a-f]{40}$/} base:{ref:s sha:/^[0-9a-f]{40}$/} merged_at:date-time? additions:i0.. deletions:i0..
github.commit sha:/^[0-9a-f]{40}$/ message:s author:{name:s email:email date:date-time} parents:[{sha:/^[0-9a-f]{40}$/}]
github.release id:i tag_name:s name:s? draft:b prerelease:b assets:[{name:s size:i0.. download_count:i0.. content_type:s}]
github.hook active:b events:[push|pull_request|issues|release]1.. config:{url:uri content_type:json|form insecure_ssl:0|1}
github.gist public:b description*:s files:<{content:s}>
github.check name:s status:queued|in_progress|completed conclusion:(success|failure|neutral|cancelled,null) output*:{title:s summary:s annotations*:[{path:s start_line:i1.. message:s}]0..50}
github.workflow id:i name:s path:s state:active|disabled_manually badge_url:uri
github.contents type:file|dir|symlink encoding*:=base64 size:i0.. name:s path:s sha:s content*:s
github.milestone title:s state:open|closed open_issues:i0.. due_on:date-time?
github.comment id:i body:s user:{login:s}? reactions:{total_count:i0.. heart:i0.. rocket:i0..}
github.search total_count:i0.. incomplete_results:b items:[{id:i score:n0.. name:s}]
github.ratelimit resources:<{limit:i0.. remaining:i0.. reset:i0..}>
github.error message:s documentation_url*:uri errors*:[{resource:s field:s code:missing|invalid|already_exists}]
stripe.charge id:/^ch_[A-Za-z0-9]{8,24}$/ object:=charge amount:i0..99999999 currency:usd|eur|gbp|jpy paid:b refunded:b status:succeeded|pending|failed metadata:<s> customer:(/^cus_\w+$/,null)
stripe.customer id:/^cus_[A-Za-z0-9]+$/ object:=customer email:email? balance:i delinquent:b address:{line1:s line2:s? city:s postal_code:s country:/^[A-Z]{2}$/}? metadata:<s>
stripe.invoice id:s status:draft|open|paid|void total:i lines:{data:[{amount:i description:s? quantity:i0..}] has_more:b} due_date:i?
stripe.price id:s active:b currency:/^[a-z]{3}$/ type:one_time|recurring unit_amount:i0..? recurring:{interval:day|week|month|year interval_count:i1..}?
stripe.refund amount:i1.. reason:(duplicate|fraudulent|requested_by_customer,null) status:pending|succeeded|failed|canceled
stripe.card brand:visa|mastercard|amex exp_month:i1..12 exp_year:i2000..2100 last4:/^\d{4}$/ funding:credit|debit|prepaid|unknown
stripe.event id:s type:/^[a-z_]+(\.[a-z_]+)+$/ livemode:b created:i0.. data:{object:<any>} pending_webhooks:i0..
stripe.subscription id:s status:active|past_due|canceled|trialing items:[{id:s price:s quantity*:i1..}]1.. cancel_at:i? trial_end:i?
stripe.coupon duration:forever|once|repeating percent_off:(n0..100,null) amount_off:i? max_redemptions:i1..? valid:b
stripe.payout amount:i arrival_date:i method:standard|instant status:paid|pending|in_transit|canceled|failed
stripe.error error:{type:card_error|api_error|invalid_request_error message:s code*:s param*:s}
stripe.balance available:[{amount:i currency:/^[a-z]{3}$/}] pending:[{amount:i currency:/^[a-z]{3}$/}]
k8s.pod apiVersion:=v1 kind:=Pod metadata:{name:/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/ namespace*:s labels*:<s>} spec:{containers:[{name:s image:s args*:[s] ports*:[{containerPort:i1..65535 protocol*:TCP|UDP|SCTP}]}]1.. restartPolicy*:Always|OnFailure|Never}
k8s.service apiVersion:=v1 kind:=Service metadata:{name:s} spec:{type:ClusterIP|NodePort|LoadBalancer selector:<s> ports:[{port:i1..65535 targetPort:(i1..65535,s) name*:s}]1..}
k8s.deployment apiVersion:=apps/v1 kind:=Deployment metadata:{name:s annotations*:<s>} spec:{replicas:i0.. selector:{matchLabels:<s>} strategy*:{type:Recreate|RollingUpdate rollingUpdate*:{maxSurge*:(i0..,/^\d+%$/) maxUnavailable*:(i0..,/^\d+%$/)}}}
k8s.configmap apiVersion:=v1 kind:=ConfigMap metadata:{name:s} data*:<s> immutable*:b
k8s.secret apiVersion:=v1 kind:=Secret type:s stringData:<s>
k8s.job apiVersion:=batch/v1 kind:=Job spec:{parallelism*:i0.. completions*:i0.. backoffLimit*:i0..10 activeDeadlineSeconds*:i1..}
k8s.cronjob kind:=CronJob spec:{schedule:/^([\d*]{1,2} ){4}[\d*]{1,2}$/ suspend*:b concurrencyPolicy*:Allow|Forbid|Replace}
k8s.ingress kind:=Ingress spec:{rules:[{host*:hostname http:{paths:[{path:/^\//  pathType:Exact|Prefix backend:{service:{name:s port:{number:i1..65535}}}}]1..}}]}
k8s.resources limits:<(/^\d+(m|Mi|Gi)?$/,i0..)> requests:<(/^\d+(m|Mi|Gi)?$/,i0..)>
k8s.probe httpGet*:{path:s port:i1..65535 scheme*:HTTP|HTTPS} initialDelaySeconds*:i0.. periodSeconds*:i1.. failureThreshold*:i1..
k8s.role rules:[{apiGroups:[s] resources:[s] verbs:[get|list|watch|create|update|patch|delete]1..}]
k8s.event reason:s message:s type:Normal|Warning count:i1.. firstTimestamp:date-time involvedObject:{kind:s name:s uid:uuid}
k8s.status kind:=Status status:Success|Failure code:i100..599 reason*:s details*:{name*:s causes*:[{field:s message:s}]}
k8s.hpa minReplicas*:i1.. maxReplicas:i1.. metrics:[(  {type:=Resource resource:{name:cpu|memory}} , {type:=Pods pods:{metric:{name:s}}} )]
k8s.volume name:s emptyDir*:{medium*:=Memory} hostPath*:{path:s type*:Directory|File} configMap*:{name:s}
k8s.networkpolicy podSelector:{matchLabels*:<s>} policyTypes:[Ingress|Egress]1..2 ingress*:[{from*:[{ipBlock:{cidr:/^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/}}]}]
openai.chat model:s messages:[{role:system|user|assistant content:(s,[({type:=text text:s},{type:=image_url image_url:{url:uri}})])}]1.. temperature*:n0..2 max_tokens*:i1.. stream*:b
openai.embedding input:(s,[s]1..) model:s encoding_format*:float|base64 dimensions*:i1..
openai.usage prompt_tokens:i0.. completion_tokens:i0.. total_tokens:i0..
openai.file id:/^file-\w+$/ bytes:i0.. created_at:i0.. filename:s purpose:assistants|batch|fine-tune
openai.tool type:=function function:{name:/^[a-zA-Z0-9_-]{1,64}$/ description*:s parameters*:<any>}
slack.message channel:/^[CDG][A-Z0-9]{8,}$/ text:s1..4000 thread_ts*:/^\d+\.\d{6}$/ blocks*:[({type:=divider},{type:=section text:{type:mrkdwn|plain_text text:s}})]0..50
slack.user id:/^U[A-Z0-9]+$/ name:s deleted:b profile:{real_name:s email*:email image_72*:uri} tz_offset:i-43200..50400
slack.channel id:s name:/^[a-z0-9_-]{1,80}$/ is_archived:b num_members:i0.. topic:{value:s last_set:i0..}
slack.modal type:=modal title:{type:=plain_text text:s1..24} submit*:{type:=plain_text text:s1..24} private_metadata*:s0..3000
slack.reaction name:s count:i1.. users:[s]1..
twilio.sms to:/^\+[1-9]\d{1,14}$/ from:/^\+[1-9]\d{1,14}$/ body:s1..1600 status:queued|sent|delivered|failed price:s? num_segments:/^\d+$/
twilio.call sid:/^CA[0-9a-f]{32}$/ duration:i0.. direction:inbound|outbound-api answered_by:(human|machine,null)
sendgrid.mail personalizations:[{to:[{email:email name*:s}]1.. subject*:s}]1..9 from:{email:email} content:[{type:text/plain|text/html value:s}]1..
jira.issue key:/^[A-Z]{2,10}-[1-9]\d*$/ fields:{summary:s1..255 issuetype:{name:Bug|Task|Story|Epic} priority:{name:s} assignee:{displayName:s}? duedate:date? storyPoints*:n0..100}
jira.sprint id:i name:s state:future|active|closed startDate*:date-time endDate*:date-time
jira.worklog timeSpentSeconds:i1.. started:date-time comment*:s author:{accountId:s}
gitlab.pipeline id:i status:created|running|success|failed|canceled ref:s sha:s duration:i0..? coverage:/^\d{1,3}\.\d\d$/
gitlab.merge_request iid:i1.. title:s source_branch:s target_branch:s labels:[s] merge_status:can_be_merged|cannot_be_merged upvotes:i0..
docker.container Id:/^[0-9a-f]{64}$/ Names:[/^\//] Image:s State:running|exited|paused Ports:[{PrivatePort:i1..65535 PublicPort*:i1..65535 Type:tcp|udp}] Labels:<s>
docker.image RepoTags:[s] Size:i0.. Created:i0.. Architecture:amd64|arm64
docker.health Status:starting|healthy|unhealthy FailingStreak:i0.. Log:[{ExitCode:i-1..255 Output:s}]0..5
npm.package name:/^(@[a-z0-9-~][a-z0-9-._~]*\/)?[a-z0-9-~][a-z0-9-._~]*$/ version:/^\d+\.\d+\.\d+$/ license*:s dependencies*:<s> scripts*:<s> private*:b
pypi.release name:s version:s requires_python:s? yanked:b urls:[{filename:s size:i0.. digests:{sha256:/^[0-9a-f]{64}$/} packagetype:sdist|bdist_wheel}]
aws.s3event Records:[{eventName:/^ObjectCreated:\w+$/ s3:{bucket:{name:s} object:{key:s size*:i0..}}}]1..
aws.iam Version:=2012-10-17 Statement:[{Effect:Allow|Deny Action:(s,[s]) Resource:(s,[s])}]1..
aws.lambda statusCode:i100..599 headers*:<(s,n,b)> body:s isBase64Encoded*:b
aws.dynamo Item:<({S:s},{N:/^-?\d+(\.\d+)?$/},{BOOL:b},{NULL:b})>
aws.ec2 InstanceId:/^i-[0-9a-f]{8,17}$/ InstanceType:/^[a-z]\d[a-z]*\.\w+$/ State:{Code:i0..255 Name:pending|running|stopped|terminated} Tags:[{Key:s1..128 Value:s0..256}]0..50
aws.cloudwatch AlarmName:s StateValue:OK|ALARM|INSUFFICIENT_DATA Threshold:n Period:i10..86400 EvaluationPeriods:i1..
gcp.operation name:s done:b error*:{code:i0..16 message:s} metadata*:<any>
azure.vm location:s properties:{vmId:uuid hardwareProfile:{vmSize:s} provisioningState:Succeeded|Failed|Creating} tags*:<s>
shopify.order id:i email:email total_price:/^\d+\.\d{2}$/ financial_status:pending|paid|refunded line_items:[{title:s quantity:i1.. price:/^\d+\.\d{2}$/ sku:s?}]1.. note:s?
shopify.product title:s vendor:s status:active|draft|archived variants:[{option1:s price:s inventory_quantity:i weight:n0..}]1..100
square.money amount:i currency:/^[A-Z]{3}$/
paypal.order intent:CAPTURE|AUTHORIZE purchase_units:[{amount:{currency_code:/^[A-Z]{3}$/ value:/^\d{1,7}(\.\d{2})?$/}}]1..10
geo.point type:=Point coordinates:[n-180..180]2..3
geo.polygon type:=Polygon coordinates:[[[n-180..180]2..3]4..]1..
geo.feature type:=Feature geometry:({type:=Point coordinates:[n]2..3},null) properties:(<any>,null) id*:(s,n)
geo.bbox bbox:[n]4..4
maps.place place_id:s name:s location:{lat:n-90..90 lng:n-180..180} rating*:n1..5 types:[s] opening_hours*:{open_now:b weekday_text:[s]7..7}
maps.route distance:{value:i0.. text:s} duration:{value:i0.. text:s} steps:[{html_instructions:s travel_mode:DRIVING|WALKING|TRANSIT}]
weather.current temp:n-90..60 humidity:i0..100 wind:{speed:n0..150 deg:i0..360} weather:[{main:Clear|Clouds|Rain|Snow description:s}]1.. dt:i0..
weather.forecast city:s days:[{date:date high:n low:n rain_chance:n0..1}]1..7
calendar.event summary:s start:({date:date},{dateTime:date-time timeZone*:s}) end:({date:date},{dateTime:date-time timeZone*:s}) attendees*:[{email:email optional*:b responseStatus:accepted|declined|tentative}] recurrence*:[/^RRULE:.+$/]
mail.message id:s threadId:s labelIds:[s] snippet:s payload:{mimeType:s headers:[{name:s value:s}] parts*:[^]}
spotify.track id:/^[A-Za-z0-9]{22}$/ name:s duration_ms:i0.. explicit:b popularity:i0..100 artists:[{name:s}]1.. preview_url:uri?
spotify.playlist name:s public:b? tracks:{total:i0.. items:[{added_at:date-time track:{name:s}?}]}
twitter.tweet id:/^\d{1,19}$/ text:s1..280 public_metrics:{like_count:i0.. retweet_count:i0..} lang:/^[a-z]{2,3}$/ referenced*:[{type:replied_to|quoted|retweeted id:s}]
reddit.comment author:s body:s score:i replies:[^] edited:(b,n)
discord.embed title*:s0..256 description*:s0..4096 color*:i0..16777215 fields*:[{name:s1..256 value:s1..1024 inline*:b}]0..25
notion.block object:=block type:paragraph|heading_1|to_do has_children:b paragraph*:{rich_text:[{plain_text:s href:uri?}]}
trello.card name:s pos:(n0..,top|bottom) due:date-time? idLabels:[/^[0-9a-f]{24}$/] closed:b
figma.node id:s name:s type:FRAME|TEXT|RECTANGLE children*:[^] opacity*:n0..1 absoluteBoundingBox*:{x:n y:n width:n0.. height:n0..}?
fhir.patient resourceType:=Patient id*:/^[A-Za-z0-9\-.]{1,64}$/ active*:b name*:[{family*:s given*:[s]}] gender*:male|female|other|unknown birthDate*:date
fhir.observation resourceType:=Observation status:registered|preliminary|final code:{coding:[{system*:uri code:s display*:s}]} valueQuantity*:{value:n unit:s}
rss.item title:s link:uri pubDate:s guid:{value:s isPermaLink:b} categories*:[s]
json.patch patch:[({op:=add path:/^(\/[^\/~]*)*$/ value:any},{op:=remove path:/^(\/[^\/~]*)*$/})]1..
json.rpc jsonrpc:=2.0 method:s params*:(<any>,[any]) id*:(s,i,null)
oauth.token access_token:s token_type:Bearer|bearer expires_in*:i0.. refresh_token*:s scope*:/^\S+( \S+)*$/
log.record timestamp:date-time level:DEBUG|INFO|WARN|ERROR message:s context*:<(s,n,b,null)> trace_id*:/^[0-9a-f]{32}$/ host*:(ipv4,ipv6,hostname)
"""  # noqa: E501  (a line for each schema)
FORMATS = ("date-time", "date", "time", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
PLAIN = {"i": "integer", "n": "number", "s": "string", "b": "boolean"}
RANGE = re.compile(r"(-?[\d.]*?\d)?\.\.(-?\d+)?")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def space(self) -> None:
        while self.text[self.at : self.at + 1] == " ":
            self.at += 1

    def found(self, mark: str) -> bool:
        here = self.text.startswith(mark, self.at)
        self.at += len(mark) if here else 0
        return here

    def fields(self, end: str) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        required: list[str] = []
        self.space()
        while not (self.at >= len(self.text) if not end else self.found(end)):
            name = self.match(r"\w+")
            if not self.found("*"):
                required.append(name)
            assert self.found(":"), self.text[self.at :]
            properties[name] = self.type()
            self.space()
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def match(self, pattern: str) -> str:
        found = re.compile(pattern).match(self.text, self.at)
        assert found, self.text[self.at :]
        self.at = found.end()
        return found[0]

    def range(self) -> tuple[float | None, float | None]:
        found = RANGE.match(self.text, self.at)
        if not found:
            return None, None
        self.at = found.end()
        return tuple(None if part is None else int(part) for part in found.groups())  # type: ignore[return-value]

    def type(self) -> dict[str, Any]:
        self.space()
        schema = self.one()
        if self.found("?"):
            return {"anyOf": [schema, {"type": "null"}]}
        return schema

    def one(self) -> dict[str, Any]:
        if self.found("{"):
            return self.fields("}")
        if self.found("^"):
            return {"$ref": "#"}
        if self.found("="):
            return {"const": self.match(r"[\w./-]+")}
        if self.found("/"):
            pattern = self.match(r"(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[])*")
            assert self.found("/")
            return {"type": "string", "pattern": pattern}
        if self.found("<"):
            inner = self.type()
            assert self.found(">")
            return {"type": "object", "additionalProperties": inner}
        if self.found("["):
            return self.list()
        if self.found("("):
            options = [self.type()]
            self.space()
            while self.found(","):
                options.append(self.type())
                self.space()
            assert self.found(")")
            return {"anyOf": options}
        return self.word()

    def list(self) -> dict[str, Any]:
        inner = self.type()
        assert self.found("]")
        least, most = self.range()
        sizes = {"minItems": least, "maxItems": most}
        return {"type": "array", "items": inner, **{k: v for k, v in sizes.items() if v is not None}}

    def word(self) -> dict[str, Any]:
        start = self.at
        word = self.match(r"[\w./|-]+(?:-[\w./|-]+)*")
        if word in FORMATS:
            return {"type": "string", "format": word}
        if word in ("any", "null"):
            return {} if word == "any" else {"type": "null"}
        if re.fullmatch(r"[insb](?:-?\d[\d.-]*)?", word):
            self.at = start + 1
            least, most = self.range()
            names = ("minLength", "maxLength") if word[0] == "s" else ("minimum", "maximum")
            given = zip(names, (least, most), strict=True)
            return {"type": PLAIN[word[0]], **{name: value for name, value in given if value is not None}}
        return {"enum": word.split("|")}


def _read(line: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = line.partition(" ")
    return name, _Reader(rest).fields("")


API_SCHEMAS = dict(_read(line) for line in TEXT.strip().splitlines())
