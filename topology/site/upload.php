<?php
// Uploads: the bytes of a POST, kept under the operation's id.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/uploads.php';

const UPLOAD_BYTES = 1_048_576;

/** A file's name: an id without a leading dot, which drafts have. */
function name(?string $op, string $parameter): string
{
    if ($op === null || !preg_match(OP, $op) || $op[0] === '.') {
        throw new Refusal(400, "$parameter must be " . OP_RULE . ', and not begin with a dot');
    }
    return $op;
}

/** The request's body, if all of it arrived: an interrupted request is not an upload. */
function body(): string
{
    $announced = $_SERVER['CONTENT_LENGTH'] ?? '';
    if ((int) $announced <= UPLOAD_BYTES) {
        $bytes = file_get_contents('php://input', length: UPLOAD_BYTES + 1);
    }
    $length = strlen($bytes ?? '');
    if (isset($bytes) && $announced !== '' && $length !== (int) $announced) {
        throw new Refusal(400, "the body must be complete, and no multipart form: $length of $announced bytes came");
    }
    if ($length < 1 || $length > UPLOAD_BYTES) {
        throw new Refusal(400, 'the body must be 1 byte to ' . UPLOAD_BYTES . ' bytes long');
    }
    return $bytes;
}

$_POST = []; // the body is content, even where its type (curl's default) made PHP parse it as a form
if (method('GET', 'POST') === 'GET') {
    $name = name(parameter('name'), 'name');
    $bytes = content(part('uploads') . "/$name") ?? throw new Refusal(404, "there is no upload $name");
    label();
    header('Content-Type: application/octet-stream');
    header('Content-Length: ' . strlen($bytes));
    header('X-Sha256: ' . hash('sha256', $bytes));
    exit($bytes);
}
$name = name(op(), 'op');
$bytes = body();
$first = store(part('uploads'), $name, $bytes);
answer(['name' => $name, 'bytes' => strlen($bytes), 'sha256' => hash('sha256', $bytes), 'first' => $first]);
