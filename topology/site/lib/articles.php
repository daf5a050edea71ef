<?php
// Articles: pages of the site that administrators change. They are written on the master of the web data alone, and
// replication brings them to the other real servers. Each change gives an article the next version.
declare(strict_types=1);

require __DIR__ . '/files.php';

const ARTICLES = 12;
const TEXT_BYTES = 2000;
const CONNECT_S = 3;
const ANSWER_S = 7; // the master's, to the real server that asks it

/** The site's folder of articles, and beside the site the drafts, which are never served. */
function folder(): string
{
    return dirname(__DIR__) . '/articles';
}

function drafts(): string
{
    return dirname(__DIR__) . '.drafts';
}

/** Whether this node is the master, on which the site is changed. */
function is_master(): bool
{
    return part('master')['node'] === node();
}

/** An article as this node has it: its version, and the op that wrote it. */
function read_article(int $article): array
{
    $page = content(folder() . "/$article.html");
    if ($page === null) {
        return ['article' => $article, 'version' => 0, 'by' => null];
    }
    if (!preg_match('/<article data-version="([0-9]+)" data-op="([^"]+)">/', $page, $found)) {
        throw new Refusal(500, "the article $article cannot be read: this site did not write it");
    }
    return ['article' => $article, 'version' => (int) $found[1], 'by' => $found[2]];
}

/** Writes an article as its next version, in one rename; one article after another. */
function write_article(int $article, string $text, string $op): array
{
    error_clear_last();
    // created at boot, and only read here: on a hostfs a new file belongs to root, and cannot be written again
    $lock = @fopen(drafts() . '/lock', 'r') ?: throw new Refusal(503, reason());
    if (!flock($lock, LOCK_EX)) {
        throw new Refusal(503, 'the articles cannot be locked');
    }
    $before = read_article($article);
    $version = $before['by'] === $op ? $before['version'] : $before['version'] + 1; // sent again
    $page = page($article, $version, $text, $op);
    $draft = write_draft(drafts() . "/$article." . bin2hex(random_bytes(8)), $page);
    if (!@rename($draft, folder() . "/$article.html")) {
        $reason = reason();
        @unlink($draft);
        throw new Refusal(503, $reason);
    }
    $digest = hash('sha256', $page); // later, another version may be here while other real servers still show this one
    return ['article' => $article, 'version' => $version, 'page' => "articles/$article.html", 'sha256' => $digest];
}

function page(int $article, int $version, string $text, string $op): string
{
    $text = htmlspecialchars($text);
    return <<<PAGE
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <link rel="stylesheet" href="../style.css">
        <title>Article $article</title>
        <article data-version="$version" data-op="$op">
          <h1>Article $article</h1>
          <p>$text</p>
        </article>
        </html>

        PAGE;
}

/**
 * The master's answer to this request, which is forwarded to it unchanged. Throws a Refusal: without a connection nothing
 * was written; with a connection and no answer it is unknown.
 */
function asked_of_master(): array
{
    $method = $_SERVER['REQUEST_METHOD'] === 'POST' ? 'POST' : 'GET';
    $parameters = http_build_query($method === 'POST' ? $_POST : $_GET);
    $target = $_SERVER['SCRIPT_NAME'] . ($method === 'GET' ? "?$parameters" : '');
    $body = $method === 'POST' ? $parameters : '';
    $host = part('master')['address'];
    $socket = @stream_socket_client("tcp://$host:80", $_, $why, CONNECT_S)
        ?: throw new Refusal(503, "the master does not answer: $why");
    stream_set_timeout($socket, ANSWER_S);
    // HTTP/1.0: the answer ends with the connection, and is not cut into chunks
    $head = "$method $target HTTP/1.0\r\nHost: $host\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    $sent = @fwrite($socket, $head . 'Content-Length: ' . strlen($body) . "\r\n\r\n$body");
    $raw = $sent ? (string) @stream_get_contents($socket) : '';
    [$head, $json] = explode("\r\n\r\n", $raw, 2) + ['', ''];
    $answer = json_decode($json, true);
    if (!is_array($answer) || !preg_match('{^HTTP/1\.[01] ([0-9]{3}) }', $head, $status)) {
        throw new Refusal(503, 'the master gave no answer', 'unknown');
    }
    if ($status[1] !== '200') {
        throw new Refusal((int) $status[1], (string) ($answer['error'] ?? ''), $answer['written'] ?? 'unknown');
    }
    return array_intersect_key($answer, array_flip(['article', 'version', 'by', 'page', 'sha256']));
}
