<?php
// What every request needs: the serving node, the parameters, and one way to answer.
declare(strict_types=1);

const PLAYERS = 200;
const OP = '/^[A-Za-z0-9_.:-]{1,64}$/D';
const OP_RULE = '1 to 64 of the characters A-Z a-z 0-9 _ . : -';

ini_set('display_errors', '0'); // a warning in the middle would spoil the answer; it belongs in the log
set_exception_handler(refuse(...));

/** A request that is answered with an error, and its effect: written is 'no' or 'unknown'. */
final class Refusal extends Exception
{
    public function __construct(
        public readonly int $status,
        string $sentence,
        public readonly string $written = 'no',
    ) {
        parent::__construct($sentence);
    }
}

/** This node's site.json. */
function site(): array
{
    static $site;
    if ($site === null) {
        $path = getenv('MONKEYWRENCH_SITE') ?: '/etc/monkeywrench/site.json';
        $site = json_decode((string) @file_get_contents($path), true);
        if (!is_array($site)) {
            $site = []; // the error answer itself needs a node and a VIP
            throw new Refusal(503, "$path cannot be read, or is not JSON");
        }
    }
    return $site;
}

/** A part of site.json that an operation needs. */
function part(string $name): array|string
{
    return site()[$name] ?? throw new Refusal(503, "this site has no $name");
}

function node(): string
{
    return site()['node'] ?? (string) gethostname();
}

/** The virtual IP that the request was for. Under direct routing the request comes in on the VIP itself. */
function vip(): string
{
    $address = $_SERVER['SERVER_ADDR'] ?? '';
    return site()['vips'][$address] ?? $address;
}

/** The operation's id, if the request has a valid one. An upload has it in the query string: its body is content. */
function op(): ?string
{
    $op = $_POST['op'] ?? $_GET['op'] ?? null;
    return is_string($op) && preg_match(OP, $op) ? $op : null;
}

/** The request's method, if the script allows it. Also checks the op: each POST must have one. */
function method(string ...$allowed): string
{
    $method = $_SERVER['REQUEST_METHOD'];
    if ($method === 'HEAD') {
        $method = 'GET'; // the server drops the body
    }
    if (!in_array($method, $allowed, true)) {
        header('Allow: ' . implode(', ', $allowed));
        throw new Refusal(405, 'the method must be ' . implode(' or ', $allowed));
    }
    $given = $method === 'POST' || isset($_POST['op']) || isset($_GET['op']);
    if ($given && op() === null) {
        throw new Refusal(400, 'op must be ' . OP_RULE);
    }
    return $method;
}

/** A parameter as it was sent: of a POST in its body, else in the query string. */
function parameter(string $name): ?string
{
    $value = ($_SERVER['REQUEST_METHOD'] === 'POST' ? $_POST : $_GET)[$name] ?? null;
    return is_string($value) ? $value : null;
}

function number(string $name, int $least, int $most): int
{
    $text = parameter($name) ?? '';
    if (!preg_match('/^(0|[1-9][0-9]{0,17})$/D', $text) || (int) $text < $least || (int) $text > $most) {
        throw new Refusal(400, "$name must be a whole number from $least to $most");
    }
    return (int) $text;
}

function player(string $name = 'player'): int
{
    return number($name, 1, PLAYERS);
}

/** The headers that PHP adds to every answer. X-Node is Apache's, which has it on static files, too. */
function label(): void
{
    header('Cache-Control: no-store');
    header('X-Vip: ' . vip());
    if (op() !== null) {
        header('X-Op: ' . op());
    }
}

/**
 * Sends the answer and ends the request. Not to be called inside a transaction: no catch sees the end of a script, and
 * the persistent connection would keep the transaction open.
 */
function answer(array $values, int $status = 200): never
{
    $body = json_encode(
        ['node' => node(), 'vip' => vip(), 'op' => op()] + $values,
        JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE | JSON_THROW_ON_ERROR,
    ) . "\n";
    http_response_code($status);
    label();
    header('Content-Type: application/json');
    header('Content-Length: ' . strlen($body)); // lets a client notice a truncated answer
    exit($body);
}

/** Answers uncaught errors. */
function refuse(Throwable $failure): never
{
    if ($failure instanceof mysqli_sql_exception) {
        // transaction() throws only errors from before its COMMIT
        $failure = new Refusal(503, 'the database is not available: ' . $failure->getMessage());
    }
    if (!$failure instanceof Refusal) {
        error_log((string) $failure);
        $failure = new Refusal(500, 'the site has a fault; its log says more', 'unknown');
    }
    answer(['error' => $failure->getMessage(), 'written' => $failure->written], $failure->status);
}
